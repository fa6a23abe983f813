"""What can be so where a rule is consulted: which roles are held there, and which facts go with them.

Stated once. Validation, the prover and the checker of certificates rely on it; tests hold it to what the
directory can hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import msgspec

from authz.domain.decisions import COURSE_TYPE, CREATE_ACTION, STRUCTURAL_TYPES
from authz.domain.facts import ALL_FACTS, ATTENDING, COURSE_ARCHIVED, FACTS, consequences, mask_of
from authz.domain.ids import ScopeKind
from authz.domain.vocabulary import API_TYPE, RoleDeclaration
from authz.policy.condition import Condition, conjunction

_MAX_CACHED = 4096
"""Actions of types: those of several large policies."""
_RESOURCE_FACTS = mask_of(fact for fact in FACTS if fact.is_of_resource)


class Situation(msgspec.Struct, frozen=True):
    """One place where an action on a type can be asked about.

    `kinds` are the kinds of scope whose roles count there, besides the platform's. `is_content` is true if a
    role of one of them is needed: roles on the platform alone open no content. `impossible` are the facts
    that never hold there.
    """

    kinds: frozenset[ScopeKind]
    is_content: bool
    impossible: int

    def demands(self, roles: Iterable[RoleDeclaration]) -> Condition | None:
        """What holds and what does not for a subject with these roles; None if nobody has them there."""
        kinds = {role.scope_kind for role in roles}
        members = kinds - {ScopeKind.PLATFORM}
        if not kinds or not members <= self.kinds or (self.is_content and not members):
            return None
        required, forbidden = 0, self.impossible
        if ScopeKind.SESSION in members:
            required |= ATTENDING
        elif not members:
            forbidden |= ATTENDING
        # In an archived course, a role that becomes another has become it.
        if not all(role.is_kept for role in roles):
            forbidden |= COURSE_ARCHIVED
        return Condition(required, forbidden)

    def always_with(self, role: RoleDeclaration) -> Condition | None:
        """The facts that always hold, and those that never hold, for a holder of this role, who may have
        other roles too; None if nobody can have the role there."""
        if role.scope_kind is ScopeKind.PLATFORM:
            return Condition(forbidden=self.impossible)  # a role in a course or session may go with it
        return self.demands([role])


@lru_cache(_MAX_CACHED)
def situations_of(type_name: str, action: str) -> tuple[Situation, ...]:
    """Every place where the action on the type can be asked about."""
    course, session = frozenset((ScopeKind.COURSE,)), frozenset((ScopeKind.SESSION,))
    nowhere = frozenset[ScopeKind]()
    if type_name == API_TYPE:
        # A call is made on the platform, and about no resource.
        return (Situation(nowhere, is_content=False, impossible=ALL_FACTS),)
    is_content = type_name not in STRUCTURAL_TYPES
    if is_content:
        places = [course, course | session, session]
    elif action == CREATE_ACTION:
        places = [nowhere] if type_name == COURSE_TYPE else [nowhere, course]
    else:
        places = [course] if type_name == COURSE_TYPE else [course | session, session]
    resource = 0 if is_content and action != CREATE_ACTION else _RESOURCE_FACTS
    return tuple(
        Situation(
            kinds,
            is_content,
            resource | mask_of(fact for fact in FACTS if fact.needs and fact.needs not in kinds),
        )
        for kinds in places
    )


def situations_with(role: RoleDeclaration, type_name: str, action: str) -> tuple[Situation, ...]:
    """Those in which somebody can have the role, perhaps besides others."""
    return tuple(each for each in situations_of(type_name, action) if each.always_with(role) is not None)


def closure(*conditions: Condition) -> Condition | None:
    """The conjunction of the conditions, with all facts that follow from it; None if it never holds."""
    start = conjunction(*conditions)
    found = consequences(start.required, start.forbidden)
    return None if found is None else Condition(*found)
