"""Selects the changes of the log that a watch sends."""

from __future__ import annotations

import msgspec

from authz.domain.entities import PLATFORM_ACTIVATION, EntityKind, kind_of
from authz.domain.ids import PLATFORM, Scope, course_scope, session_scope
from authz.domain.mutations import ChangePart, ChangeScope, Mutation


class ChangeFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Changes in any of the scopes and of any of the kinds; an empty field filters nothing.

    A course has in it its sessions and all that is in these. In the platform are its memberships, the
    accounts, the access tokens and the versions of its policy. Which of them is active concerns every scope.
    """

    scopes: frozenset[Scope] = frozenset()
    kinds: frozenset[EntityKind] = frozenset()

    def matches(self, mutation: Mutation, scope: ChangeScope) -> bool:
        """Whether to send the mutation. A mutation whose scope is unknown matches every scope."""
        if self.kinds and kind_of(mutation.target).name not in self.kinds:
            return False
        if not self.scopes:
            return True
        around = _scopes_around(mutation, scope)
        return not around or not self.scopes.isdisjoint(around)

    def select(self, part: ChangePart) -> tuple[Mutation, ...]:
        """The matching mutations of a part, in order."""
        pairs = zip(part.change.mutations, part.change.scopes, strict=True)
        return tuple(mutation for mutation, scope in pairs if self.matches(mutation, scope))


def _scopes_around(mutation: Mutation, scope: ChangeScope) -> tuple[Scope, ...]:
    """Every scope that the entity is in. Empty if its scope is unknown, or if it concerns all of them."""
    target = mutation.target
    if target.key == PLATFORM_ACTIVATION:
        return ()
    kind = kind_of(target)
    within = PLATFORM if kind.container is None else getattr(target, kind.container.field, None)
    if kind.scope is None and within == PLATFORM:
        return (PLATFORM,)
    around = []
    if scope.course_id is not None:
        around.append(course_scope(scope.course_id))
    if scope.session_id is not None:
        around.append(session_scope(scope.session_id))
    return tuple(around)
