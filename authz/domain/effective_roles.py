"""Which roles a subject's memberships give at a time, and why a membership gives none."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import product
from typing import TypeAlias

import msgspec

from authz.domain.context import earliest_after
from authz.domain.entities import CourseState, MembershipStatus
from authz.domain.ids import ScopeKind, Subject
from authz.domain.instants import Instant
from authz.domain.vocabulary import RoleDeclaration


class InactiveReason(StrEnum):
    """Why a membership gives no role. In order of how near it is to giving one."""

    DRAFT_COURSE = "DRAFT_COURSE"
    NOT_STARTED = "NOT_STARTED"
    INVITED = "INVITED"
    SUSPENDED = "SUSPENDED"
    ENDED = "ENDED"
    ROLE_NOT_DECLARED = "ROLE_NOT_DECLARED"


class MembershipTerms(msgspec.Struct, frozen=True, gc=False):
    """A membership without its subject and the id of its scope: all that its role depends on."""

    kind: ScopeKind
    role: str
    status: MembershipStatus
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    suspended_until: Instant | None = None

    @property
    def has_dates(self) -> bool:
        """Whether what it gives depends on the time."""
        return not (self.starts_at is self.ends_at is self.suspended_until is None)

    def is_suspended(self, now: Instant) -> bool:
        """Whether it shuts its subject out of its scope at `now`."""
        return self.status is MembershipStatus.SUSPENDED or (
            self.suspended_until is not None and now < self.suspended_until
        )


Memberships: TypeAlias = tuple[MembershipTerms, ...]
"""The memberships of one subject in a course, a session and on the platform."""


class Suspension(msgspec.Struct, frozen=True, gc=False):
    """Why a subject has no role anywhere: its account is suspended, until a time or without an end, or the
    processing of its data is restricted, which has no end, or both."""

    until: Instant | None = None
    of_account: bool = True
    is_restriction: bool = False

    def is_effective(self, now: Instant) -> bool:
        """Whether the subject has no role anywhere at `now`."""
        return self.is_restriction or self.is_of_account(now)

    def is_of_account(self, now: Instant) -> bool:
        """Whether the account is suspended at `now`."""
        return self.of_account and (self.until is None or now < self.until)

    def remedy(self, subject: Subject) -> str:
        """The cause of a refusal, and the command that ends it."""
        if self.is_restriction:
            return (
                f"the data of {subject} is restricted; a privacy officer can end that with"
                f" `authz privacy lift-restriction {subject} --reason WHY`"
            )
        return (
            f"the account of {subject} is suspended; an operator can end that with"
            f" `authz account restore {subject}`"
        )


class EffectiveRoles(msgspec.Struct, frozen=True, gc=False):
    """The roles that memberships give together, and when time alone may change them.

    `in_course` and `in_session` say whether a membership there gives a role. `inactive_reason` is why a
    membership gives none: of several, the one nearest to giving a role. `next_change_at` is the earliest
    later instant at which a membership starts or ends, if any.
    """

    roles: frozenset[str]
    in_course: bool
    in_session: bool
    inactive_reason: InactiveReason | None
    next_change_at: Instant | None


_ORDER = {reason: number for number, reason in enumerate(InactiveReason)}
_NO_ROLES = EffectiveRoles(frozenset(), False, False, None, None)
_NOT_STARTED = EffectiveRoles(frozenset(), False, False, InactiveReason.NOT_STARTED, None)
_SUSPENDED = EffectiveRoles(frozenset(), False, False, InactiveReason.SUSPENDED, None)
_ENDED = EffectiveRoles(frozenset(), False, False, InactiveReason.ENDED, None)
_UNDECLARED = EffectiveRoles(frozenset(), False, False, InactiveReason.ROLE_NOT_DECLARED, None)

RoleTable: TypeAlias = Mapping[tuple[str, ScopeKind, MembershipStatus, CourseState | None], EffectiveRoles]
"""What a membership without dates gives, by role, kind of scope, status and the course's state."""


def role_given(
    declared: RoleDeclaration,
    status: MembershipStatus,
    course_state: CourseState | None,
    roles: Mapping[str, RoleDeclaration],
) -> str | InactiveReason:
    """The role that a membership gives between its dates, else why it gives none.

    `course_state` is that of the resource's course, if it has one. It decides for the memberships in the
    course and in its sessions.
    """
    if status is MembershipStatus.INVITED:
        return InactiveReason.INVITED
    if status is MembershipStatus.SUSPENDED:
        return InactiveReason.SUSPENDED
    role = declared.name if status is MembershipStatus.ACTIVE else declared.becomes
    if not role:
        return InactiveReason.ENDED
    if (
        course_state is None
        or course_state is CourseState.ACTIVE
        or declared.scope_kind is ScopeKind.PLATFORM
    ):
        return role
    if course_state is CourseState.DRAFT:
        return role if roles[role].works_in_drafts else InactiveReason.DRAFT_COURSE
    return roles[role].becomes or role


@lru_cache(maxsize=8)
def role_table(declared_roles: tuple[RoleDeclaration, ...]) -> RoleTable:
    """Every outcome of the declared roles. A role that is not in it is not declared, and gives none.

    Cached, because few versions of a policy change its roles.
    """
    table = {}
    roles = {declared.name: declared for declared in declared_roles}
    for declared, status, state in product(declared_roles, MembershipStatus, (None, *CourseState)):
        outcome = role_given(declared, status, state, roles)
        kind = declared.scope_kind
        table[declared.name, kind, status, state] = (
            EffectiveRoles(frozenset(), False, False, outcome, None)
            if isinstance(outcome, InactiveReason)
            else EffectiveRoles(
                frozenset((outcome,)), kind is ScopeKind.COURSE, kind is ScopeKind.SESSION, None, None
            )
        )
    return table


def suspended_kinds(
    memberships: Sequence[MembershipTerms], suspension: Suspension | None, now: Instant
) -> set[ScopeKind]:
    """The kinds of scopes whose memberships give no role at `now`, whatever they say.

    A `suspension` takes every role away. One in the course or the session covers both; one on the platform
    covers only the platform.
    """
    if suspension is not None and suspension.is_effective(now):
        return set(ScopeKind)
    kinds = {each.kind for each in memberships if each.is_suspended(now)}
    return kinds | {ScopeKind.COURSE, ScopeKind.SESSION} if kinds - {ScopeKind.PLATFORM} else kinds


def effective_roles_of(
    memberships: Sequence[MembershipTerms],
    course_state: CourseState | None,
    table: RoleTable,
    now: Instant,
    suspension: Suspension | None = None,
) -> EffectiveRoles:
    """The roles that a subject's memberships in a resource's course, its session and the platform give.

    `suspension` is that of the subject.
    """
    if len(memberships) == 1 and suspension is None:
        membership = memberships[0]
        if not membership.has_dates:
            return table.get((membership.role, membership.kind, membership.status, course_state), _UNDECLARED)
    elif not memberships:
        return _NO_ROLES
    roles: frozenset[str] = frozenset()
    in_course = in_session = False
    reason: InactiveReason | None = None
    dates: list[Instant | None] = [] if suspension is None else [suspension.until]
    suspended = suspended_kinds(memberships, suspension, now)
    for membership in memberships:
        one = effective_roles_of_one(membership, course_state, table, now, suspended)
        roles |= one.roles
        in_course |= one.in_course
        in_session |= one.in_session
        why = one.inactive_reason
        if why is not None and (reason is None or _ORDER[why] < _ORDER[reason]):
            reason = why
        if membership.status is MembershipStatus.ACTIVE:
            dates += (membership.starts_at, membership.ends_at)
        dates.append(membership.suspended_until)
    return EffectiveRoles(roles, in_course, in_session, reason, earliest_after(now, *dates))


def effective_roles_of_each(
    memberships: Memberships,
    course_state: CourseState | None,
    table: RoleTable,
    now: Instant,
    suspension: Suspension | None,
) -> Iterator[tuple[MembershipTerms, EffectiveRoles]]:
    """Each membership with what it gives at `now` among all of them, as `effective_roles_of_one`."""
    suspended = suspended_kinds(memberships, suspension, now)
    for each in memberships:
        yield each, effective_roles_of_one(each, course_state, table, now, suspended)


def effective_roles_of_one(
    membership: MembershipTerms,
    course_state: CourseState | None,
    table: RoleTable,
    now: Instant,
    suspended: Collection[ScopeKind],
) -> EffectiveRoles:
    """The role that one membership gives at `now`, or why it gives none. Its `next_change_at` is not set.

    `suspended` is what `suspended_kinds` says of all memberships.
    """
    if membership.kind in suspended:
        return _SUSPENDED
    found = table.get((membership.role, membership.kind, membership.status, course_state), _UNDECLARED)
    if membership.status is MembershipStatus.ACTIVE and found is not _UNDECLARED:
        if membership.starts_at is not None and now < membership.starts_at:
            return _NOT_STARTED
        if membership.ends_at is not None and now >= membership.ends_at:
            return _ENDED
    return found
