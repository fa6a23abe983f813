"""Keeps the platform administrable: somebody can always edit the policy, and give roles to callers.

A subject administers the platform if its memberships there give it a role that may edit the policy; a caller
administers the other callers if a role permits it to give roles. Writers take turns, so of two writes that
would each remove one of the last two administrators, the second is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from operator import attrgetter
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Connection, exists, or_, select

from authz.domain.decisions import EDIT_POLICY
from authz.domain.effective_roles import (
    EffectiveRoles,
    MembershipTerms,
    Suspension,
    effective_roles_of,
    role_table,
)
from authz.domain.entities import (
    PLATFORM_ACTIVATION,
    Account,
    AccountKey,
    AccountStatus,
    Entity,
    Key,
    Membership,
    MembershipKey,
)
from authz.domain.errors import (
    ErrorReason,
    FailedPreconditionError,
    PermissionDeniedError,
    UnusablePolicyError,
)
from authz.domain.ids import PLATFORM, Subject, SubjectType
from authz.domain.instants import Instant
from authz.domain.mutations import Mutation, Operation
from authz.domain.ports import Vocabularies
from authz.domain.vocabulary import GRANT_ROLES, Vocabulary
from authz.store import tables
from authz.store.active_policy import active_vocabulary
from authz.store.batch import Batch
from authz.store.rows import ENTITY_ROWS, subject_of

_Changes: TypeAlias = Mapping[Key, Entity | None]
_TABLE, _STEPS = ENTITY_ROWS["membership"].table, tables.erasure_steps
_IS_BEING_ERASED = exists().where(
    _STEPS.c.pseudonym_type == _TABLE.c.subject_type, _STEPS.c.subject_id == _TABLE.c.subject_id
)
_RESTRICTIONS = ENTITY_ROWS["restriction"].table
_IS_RESTRICTED = exists().where(
    _RESTRICTIONS.c.subject_type == _TABLE.c.subject_type, _RESTRICTIONS.c.subject_id == _TABLE.c.subject_id
)
_ON_PLATFORM = select(
    _TABLE.c.subject_type,
    _TABLE.c.subject_id,
    _TABLE.c.role,
    or_(_IS_BEING_ERASED, _IS_RESTRICTED).label("does_not_count"),
).where(_TABLE.c.scope_kind == PLATFORM.kind.value)


class _Coverage(IntEnum):
    """Whether somebody holds a permission, and for how long. A write may not lower it."""

    NONE = 0
    TEMPORARY = 1
    """Every holder loses the permission at some time."""
    PERMANENT = 2


class _Protected(msgspec.Struct, frozen=True):
    """A permission that somebody must keep, once somebody has it."""

    permission: str
    roles_of: Callable[[Vocabulary], frozenset[str]]
    types: frozenset[SubjectType]
    left: str
    remedy: str


_PROTECTED = (
    _Protected(
        permission=EDIT_POLICY,
        roles_of=attrgetter("administrators"),
        types=frozenset(SubjectType),
        left="nobody on the platform who may edit its policy",
        remedy="first make somebody else",
    ),
    _Protected(
        permission=GRANT_ROLES,
        roles_of=attrgetter("granters"),
        types=frozenset((SubjectType.SERVICE,)),
        left="no caller that may give roles to callers",
        remedy="first make another service",
    ),
)


class Administrators:
    """Watches the writes of one transaction."""

    def __init__(
        self, connection: Connection, batch: Batch, vocabularies: Vocabularies, now: Instant
    ) -> None:
        self._connection = connection
        self._batch = batch
        self._vocabularies = vocabularies
        self._now = now
        self._keys: set[MembershipKey] | None = None
        """Of the memberships on the platform, also of those that this transaction has written."""
        self._excluded: set[Subject] = set()
        """Subjects that do not count: restricted ones, and those that are being erased."""

    def may_lower(self, mutations: Iterable[Mutation]) -> bool:
        """Whether a write of these could remove the last holder of a protected permission."""
        found = False
        for mutation in mutations:  # every one: it may write a membership that others are compared with
            found |= self._may_lower(mutation.key)
        return found

    def coverage(self, changes: _Changes | None = None) -> tuple[_Coverage, ...] | None:
        """The coverage of each protected permission, after the writes so far and these changes.

        None if this process cannot read the active version: it cannot tell.
        """
        try:
            vocabulary = active_vocabulary(self._vocabularies, self._batch.find)
        except UnusablePolicyError:
            return None
        held: dict[Subject, list[Membership]] = {}
        for key in self._memberships():
            found = self._find(key, changes or {})
            if isinstance(found, Membership) and found.subject not in self._excluded:
                held.setdefault(found.subject, []).append(found)
        roles = {
            subject: self._roles_of(subject, held[subject], vocabulary, changes or {}) for subject in held
        }
        return tuple(
            max(
                (
                    _coverage_by(roles[subject], protected.roles_of(vocabulary))
                    for subject in roles
                    if subject.type in protected.types
                ),
                default=_Coverage.NONE,
            )
            for protected in _PROTECTED
        )

    def require_kept(self, before: tuple[_Coverage, ...] | None, changes: _Changes | None = None) -> None:
        """Raise `FailedPreconditionError` (LAST_ADMINISTRATOR) if a protected permission loses its last
        holder."""
        if before is None or not any(before):
            return
        after = self.coverage(changes)
        for protected, had, has in zip(_PROTECTED, before, after or before, strict=True):
            if has < had:
                vocabulary = active_vocabulary(self._vocabularies, self._batch.find)
                raise _lost(protected, has, sorted(protected.roles_of(vocabulary)))

    def require_kept_by(self, mutation: Mutation) -> None:
        """As `require_kept`, for a mutation that is applied next."""
        self.require_kept(self.coverage(), {mutation.key: self._after(mutation)})

    def require_not_restored_by(self, mutation: Mutation) -> None:
        """Raise `PermissionDeniedError` for a mutation, applied next, that ends or shortens the suspension of
        an account with a role on the platform: it gives that role back."""
        key = mutation.key
        if not isinstance(key, AccountKey) or not self._is_on_platform(key.subject):
            return
        if self._suspended_until(self._after(mutation)) < self._suspended_until(self._find(key, {})):
            raise PermissionDeniedError(
                f"{key.subject} is suspended and has a role on the platform, so only a caller with"
                f" `{GRANT_ROLES}` may end that; have an operator do so (`authz account restore`)",
                permission=GRANT_ROLES,
                scope=str(PLATFORM),
            )

    def require_kept_without(self, subject: Subject) -> None:
        """As `require_kept`, before a subject loses all that it has on the platform."""
        held = [key for key in self._memberships() if key.subject == subject]
        if held:
            self.require_kept(self.coverage(), dict.fromkeys(held))

    def _after(self, mutation: Mutation) -> Any:
        """The record as a mutation that is applied next leaves it; None if there is none then."""
        if mutation.operation is Operation.DELETE:
            return None
        if mutation.operation is Operation.UPDATE:
            found = self._find(mutation.key, {})
            return None if found is None else msgspec.structs.replace(found, **dict(mutation.values))
        return mutation.target

    def _suspended_until(self, account: Entity | None) -> float:
        """When the suspension of an account ends; now for one that is not suspended."""
        if not isinstance(account, Account) or account.status is not AccountStatus.SUSPENDED:
            return self._now
        return math.inf if account.suspended_until is None else max(self._now, account.suspended_until)

    def _may_lower(self, key: Key) -> bool:
        if isinstance(key, MembershipKey) and key.scope == PLATFORM:
            self._memberships().add(key)
            return True
        if isinstance(key, AccountKey):
            return self._is_on_platform(key.subject)
        return key == PLATFORM_ACTIVATION

    def _is_on_platform(self, subject: Subject) -> bool:
        return any(subject == each.subject for each in self._memberships())

    def _memberships(self) -> set[MembershipKey]:
        if self._keys is None:
            rows = self._connection.execute(_ON_PLATFORM).all()
            self._keys = {MembershipKey(subject_of(row), PLATFORM, row.role) for row in rows}
            self._excluded = {subject_of(row) for row in rows if row.does_not_count}
            self._batch.prefetch([*self._keys, *{AccountKey(key.subject) for key in self._keys}])
        return self._keys

    def _find(self, key: Key, changes: _Changes) -> Entity | None:
        if key in changes:
            return changes[key]
        found = self._batch.find(key)
        return None if found is None else found.entity

    def _roles_of(
        self, subject: Subject, held: Iterable[Membership], vocabulary: Vocabulary, changes: _Changes
    ) -> EffectiveRoles:
        account = self._find(AccountKey(subject), changes)
        suspension = None
        if isinstance(account, Account) and account.status is AccountStatus.SUSPENDED:
            suspension = Suspension(account.suspended_until)
        memberships = [
            MembershipTerms(
                PLATFORM.kind, each.role, each.status, each.starts_at, each.ends_at, each.suspended_until
            )
            for each in held
        ]
        return effective_roles_of(
            memberships, None, role_table(tuple(vocabulary.roles.values())), self._now, suspension
        )


def _coverage_by(held: EffectiveRoles, roles: frozenset[str]) -> _Coverage:
    """The coverage of a permission of some roles by one subject."""
    if not held.roles & roles:
        return _Coverage.NONE
    return _Coverage.PERMANENT if held.next_change_at is None else _Coverage.TEMPORARY


def _lost(protected: _Protected, coverage: _Coverage, roles: list[str]) -> FailedPreconditionError:
    """The error for a write that would lower the coverage of a permission."""
    named = " or ".join(f"`{role}`" for role in roles)
    when = "" if coverage is _Coverage.NONE else " from some time on"
    remedy = f"{protected.remedy} {named}, with an active account and without an end"
    if not roles:
        remedy = f"keep a row of the policy that lets a role on the platform `{protected.permission}`"
    return FailedPreconditionError(
        ErrorReason.LAST_ADMINISTRATOR,
        f"this would leave {protected.left}{when}; {remedy}",
        roles=" ".join(roles),
        permission=protected.permission,
    )
