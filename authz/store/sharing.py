"""Which memberships open what is shared, and what remains shared without one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Connection, Select, and_, exists, false, or_, select

from authz.domain.entities import Entity, Key, Membership, MembershipKey, Share, Versioned
from authz.domain.errors import ErrorReason, FailedPreconditionError
from authz.domain.ids import Scope, ScopeKind, Subject, SubjectType
from authz.domain.instants import Instant
from authz.store.bulk import select_by, select_distinct
from authz.store.rows import ENTITY_ROWS, subject_of
from authz.store.tables import has_subject

ScopeAndSubject: TypeAlias = tuple[Scope, Subject]

_MEMBERSHIPS, _SESSIONS, _RESOURCES, _SHARES = (
    ENTITY_ROWS[name].table for name in ("membership", "session", "resource", "share")
)
_RESOURCES_SHARED = _SHARES.join(
    _RESOURCES,
    and_(_RESOURCES.c.type == _SHARES.c.resource_type, _RESOURCES.c.id == _SHARES.c.resource_id),
)


class Member(msgspec.Struct, frozen=True, tag_field="kind", tag="member"):
    """A subject in a course with its sessions, or in a session without a course."""

    subject: Subject
    scope: Scope

    def __str__(self) -> str:
        return f"what is shared with {self.subject} in {self.scope}"


class MembershipLookup:
    """Finds out who has a membership in a scope, after the mutations of a transaction so far.

    `find` reads the record with a key, after these mutations.
    """

    def __init__(
        self, connection: Connection, find: Callable[[Key], Versioned[Entity] | None], now: Instant
    ) -> None:
        self._connection = connection
        self._find = find
        self._now = now
        self._stored_roles: dict[ScopeAndSubject, set[str]] = {}
        self._written_roles: dict[ScopeAndSubject, set[str]] = defaultdict(set)
        """Roles that memberships have, or had in this transaction."""

    def prefetch(self, pairs: Iterable[ScopeAndSubject]) -> None:
        """Read in bulk which memberships are stored for these."""
        if missing := [pair for pair in pairs if pair not in self._stored_roles]:
            self._stored_roles |= _roles_in(self._connection, missing)

    def add(self, membership: Membership) -> None:
        """Note a membership that is written."""
        self._written_roles[membership.scope, membership.subject].add(membership.role)

    def has_one(self, scope: Scope, subject: Subject) -> bool:
        """Whether a subject has a membership in a scope itself that has not ended."""
        pair = (scope, subject)
        self.prefetch([pair])
        roles = self._stored_roles[pair] | self._written_roles[pair]
        keys = (MembershipKey(subject, scope, role) for role in roles)
        return any((found := self._find(key)) and not has_ended(found.entity, self._now) for key in keys)


def has_ended(entity: Entity, now: Instant) -> bool:
    """Whether an entity is a membership that has ended by its date."""
    return isinstance(entity, Membership) and entity.has_ended(now)


def _roles_in(connection: Connection, pairs: Iterable[ScopeAndSubject]) -> dict[ScopeAndSubject, set[str]]:
    """The roles of the memberships, whatever their status, for each scope and subject."""
    found: dict[ScopeAndSubject, set[str]] = {pair: set() for pair in pairs}
    values = [(scope.kind, scope.id, subject.type, subject.id) for scope, subject in found]
    columns = ("scope_kind", "scope_id", "subject_type", "subject_id")
    for row in select_by(connection, _MEMBERSHIPS, columns, values):
        found[Scope(ScopeKind(row.scope_kind), row.scope_id), subject_of(row)].add(row.role)
    return found


def subjects_with_shares(connection: Connection, subjects: Iterable[Subject]) -> set[Subject]:
    """The subjects with whom anything is shared."""
    values = [(subject.type, subject.id) for subject in subjects]
    found = select_distinct(connection, _SHARES, ("subject_type", "subject_id"), values)
    return {Subject(SubjectType(subject_type), id_) for subject_type, id_ in found}


def lapsed_members(connection: Connection, members: Iterable[Member], now: Instant) -> set[Member]:
    """Those of the members of whose memberships there one has ended, and with whom something is shared.

    A membership in any session counts: few end by their date, and their course is not in their rows.
    """
    wanted = {*members}
    sharers = subjects_with_shares(connection, {member.subject for member in wanted})
    values = [(subject.type, subject.id) for subject in sharers]
    ended: dict[Subject, set[Scope]] = defaultdict(set)
    for row in select_by(connection, _MEMBERSHIPS, ("subject_type", "subject_id"), values):
        if row.ends_at is not None and row.ends_at <= now:
            ended[subject_of(row)].add(Scope(ScopeKind(row.scope_kind), row.scope_id))
    return {
        member
        for member in wanted
        if any(scope == member.scope or scope.kind is ScopeKind.SESSION for scope in ended[member.subject])
    }


def not_a_member(share: Share, scopes: Iterable[Scope]) -> FailedPreconditionError:
    """The error for a share that no membership in these scopes opens."""
    named = " or ".join(sorted(map(str, scopes)))
    return FailedPreconditionError(
        ErrorReason.SUBJECT_NOT_A_MEMBER,
        f"{share.key}: {share.subject} has no membership in {named}; write that first, or set "
        "awaits_membership",
        key=str(share.key),
    )


def unopened_shares(
    connection: Connection, member: Member, limit: int, now: Instant
) -> list[Versioned[Share]]:
    """Up to `limit` of the shares with a member there that no membership opens which has not ended, and that
    do not await one."""
    opened = exists().where(
        _goes_on(member.subject, now),
        or_(_is_in(_MEMBERSHIPS, member.scope), _is_where_the_resource_is()),
    )
    unopened = shares_there(member).where(~_SHARES.c.awaits_membership, ~opened).limit(limit)
    return ENTITY_ROWS["share"].read(connection, unopened)


def lapsed_shares(connection: Connection, subject: Subject, now: Instant) -> list[Versioned[Share]]:
    """As `unopened_shares`, wherever the resources are, without a limit."""
    opened = exists().where(
        _goes_on(subject, now),
        or_(
            _is_where_the_resource_is(),
            and_(
                _MEMBERSHIPS.c.scope_kind == ScopeKind.COURSE,
                _MEMBERSHIPS.c.scope_id == _SESSIONS.c.course_id,
            ),
        ),
    )
    shares = _about(subject, _SHARES, _RESOURCES_SHARED, _RESOURCES)
    return ENTITY_ROWS["share"].read(connection, shares.where(~_SHARES.c.awaits_membership, ~opened))


def shares_there(member: Member) -> Select[Any]:
    """The rows of the shares with a member there, in the order of their keys."""
    return _there(member, _SHARES, _RESOURCES_SHARED, _RESOURCES).order_by(
        _SHARES.c.resource_type, _SHARES.c.resource_id
    )


def memberships_there(member: Member) -> Select[Any]:
    """The rows of a member's memberships there, that in the course first."""
    columns = _MEMBERSHIPS.c
    return _there(member, _MEMBERSHIPS, _MEMBERSHIPS, _MEMBERSHIPS).order_by(
        columns.scope_kind, columns.scope_id, columns.role
    )


def _there(member: Member, table: Any, joined: Any, located: Any) -> Select[Any]:
    """The rows of a table about a member, as far as the row of `located` that is joined is there."""
    # No session belongs to a session.
    in_course = _SESSIONS.c.course_id == member.scope.id if member.scope.kind is ScopeKind.COURSE else false()
    rows = _about(member.subject, table, joined, located)
    return rows.where(or_(_is_in(located, member.scope), in_course))


def _about(subject: Subject, table: Any, joined: Any, located: Any) -> Select[Any]:
    """The rows of a table about a subject, with the session that the row of `located` is in, if any."""
    session = and_(located.c.scope_kind == ScopeKind.SESSION, _SESSIONS.c.id == located.c.scope_id)
    rows = select(table).select_from(joined.outerjoin(_SESSIONS, session))
    return rows.where(has_subject(table, "subject", subject))


def _goes_on(subject: Subject, now: Instant) -> Any:
    """Whether a membership is the subject's and has not ended."""
    ends_at = _MEMBERSHIPS.c.ends_at
    return and_(has_subject(_MEMBERSHIPS, "subject", subject), or_(ends_at.is_(None), ends_at > now))


def _is_where_the_resource_is() -> Any:
    columns = _MEMBERSHIPS.c
    return and_(columns.scope_kind == _RESOURCES.c.scope_kind, columns.scope_id == _RESOURCES.c.scope_id)


def _is_in(table: Any, scope: Scope) -> Any:
    return and_(table.c.scope_kind == scope.kind, table.c.scope_id == scope.id)
