"""Keeps the platform administrable: no write takes the policy, or the roles of callers, out of all hands.

A subject administers the platform if its memberships there give it a role that may edit the policy; a caller
administers the other callers if a role permits it to give roles. Writers take turns, so of two writes that
would each remove one of the last two administrators, the second is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from operator import attrgetter
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Connection, select

from authz.domain.decisions import EDIT_POLICY
from authz.domain.effective_roles import EffectiveRoles, Grant, Suspension, effective_roles_of, role_table
from authz.domain.entities import (
    PLATFORM_ACTIVATION,
    Account,
    AccountKey,
    AccountStatus,
    Entity,
    Key,
    Membership,
    MembershipKey,
    kind_of,
)
from authz.domain.errors import (
    ErrorReason,
    FailedPreconditionError,
    InvalidArgumentError,
    UnusablePolicyError,
)
from authz.domain.ids import PLATFORM, Subject, SubjectType
from authz.domain.instants import Instant
from authz.domain.mutations import Mutation, Operation
from authz.domain.ports import Vocabularies
from authz.domain.vocabulary import GRANT_ROLES, Vocabulary
from authz.store.active_policy import active_vocabulary, vocabulary_for
from authz.store.batch import Batch
from authz.store.rows import ENTITY_ROWS

_Changes: TypeAlias = Mapping[Key, Entity | None]
_TABLE = ENTITY_ROWS["membership"].table
_ON_PLATFORM = select(_TABLE.c.subject_type, _TABLE.c.subject_id, _TABLE.c.role).where(
    _TABLE.c.scope_kind == PLATFORM.kind.value
)


class _Hands(IntEnum):
    """In whose hands an office is. A write may not lower it."""

    NOBODY = 0
    FOR_A_TIME = 1
    """Every administrator is one until a time only."""
    FOR_GOOD = 2


class _Office(msgspec.Struct, frozen=True):
    """Something that must stay in somebody's hands, once it is."""

    permission: str
    roles_of: Callable[[Vocabulary], frozenset[str]]
    types: frozenset[SubjectType]
    left: str
    remedy: str


_OFFICES = (
    _Office(
        permission=EDIT_POLICY,
        roles_of=attrgetter("administrators"),
        types=frozenset(SubjectType),
        left="nobody on the platform who may edit its policy",
        remedy="first make somebody else",
    ),
    _Office(
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

    def concern(self, mutations: Iterable[Mutation]) -> bool:
        """Whether a write of these could take an office out of everybody's hands."""
        found = False
        for mutation in mutations:  # every one: it may write a membership that others are compared with
            found |= self._concern(mutation.key)
        return found

    def hands(self, changes: _Changes | None = None) -> tuple[_Hands, ...] | None:
        """In whose hands each office is, after the writes so far and these changes.

        None if this process cannot read the active version: it cannot tell.
        """
        try:
            vocabulary = active_vocabulary(self._vocabularies, self._batch.find)
        except UnusablePolicyError:
            return None
        held: dict[Subject, list[Membership]] = {}
        for key in self._memberships():
            found = self._find(key, changes or {})
            if isinstance(found, Membership):
                held.setdefault(found.subject, []).append(found)
        roles = {
            subject: self._roles_of(subject, held[subject], vocabulary, changes or {}) for subject in held
        }
        return tuple(
            max(
                (
                    _hands_of(roles[subject], office.roles_of(vocabulary))
                    for subject in roles
                    if subject.type in office.types
                ),
                default=_Hands.NOBODY,
            )
            for office in _OFFICES
        )

    def require_kept(self, before: tuple[_Hands, ...] | None, changes: _Changes | None = None) -> None:
        """Raise `FailedPreconditionError` (LAST_ADMINISTRATOR) if nobody is left who was enough before."""
        if before is None or not any(before):
            return
        after = self.hands(changes)
        for office, had, has in zip(_OFFICES, before, after or before, strict=True):
            if has < had:
                vocabulary = active_vocabulary(self._vocabularies, self._batch.find)
                raise _left(office, has, sorted(office.roles_of(vocabulary)))

    def require_kept_by(self, mutation: Mutation) -> None:
        """As `require_kept`, for a mutation that is applied next."""
        mutation.validate(vocabulary_for(mutation, self._vocabularies, self._batch.find))
        key = mutation.key
        after: Any = mutation.target
        if mutation.operation is Operation.DELETE:
            after = None
        elif mutation.operation is Operation.UPDATE:
            found = self._find(key, {})
            after = None if found is None else msgspec.structs.replace(found, **dict(mutation.values))
        self.require_kept(self.hands(), {key: after})

    def require_kept_without(self, subject: Subject) -> None:
        """As `require_kept`, before a subject loses all that it has on the platform."""
        held = [key for key in self._memberships() if key.subject == subject]
        if held:
            self.require_kept(self.hands(), dict.fromkeys(held))

    def _concern(self, key: Key) -> bool:
        try:
            kind_of(key).validate_key(key)
        except InvalidArgumentError:
            return False  # it is refused when it is applied
        if isinstance(key, MembershipKey) and key.scope == PLATFORM:
            self._memberships().add(key)
            return True
        if isinstance(key, AccountKey):
            return any(key.subject == each.subject for each in self._memberships())
        return key == PLATFORM_ACTIVATION

    def _memberships(self) -> set[MembershipKey]:
        if self._keys is None:
            rows = self._connection.execute(_ON_PLATFORM).all()
            self._keys = {
                MembershipKey(Subject(SubjectType(row.subject_type), row.subject_id), PLATFORM, row.role)
                for row in rows
            }
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
        grants = [
            Grant(PLATFORM.kind, each.role, each.status, each.starts_at, each.ends_at, each.suspended_until)
            for each in held
        ]
        return effective_roles_of(grants, None, role_table(vocabulary.roles), self._now, suspension)


def _hands_of(held: EffectiveRoles, roles: frozenset[str]) -> _Hands:
    """How one subject holds the office of some roles."""
    if not held.roles & roles:
        return _Hands.NOBODY
    return _Hands.FOR_GOOD if held.next_change_at is None else _Hands.FOR_A_TIME


def _left(office: _Office, hands: _Hands, roles: list[str]) -> FailedPreconditionError:
    """The error for a write that would leave an office in fewer hands."""
    named = " or ".join(f"`{role}`" for role in roles) or f"a role that may {office.permission}"
    when = "" if hands is _Hands.NOBODY else " from some time on"
    return FailedPreconditionError(
        ErrorReason.LAST_ADMINISTRATOR,
        f"this would leave {office.left}{when};"
        f" {office.remedy} {named}, with an active account and without an end",
        roles=" ".join(roles),
        permission=office.permission,
    )
