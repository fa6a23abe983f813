"""Which role a membership gives at a time, and why it gives none. Source: design of memberships."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache

import msgspec

from authz.domain.entities import CourseState, Membership, MembershipStatus
from authz.domain.ids import ScopeKind
from authz.domain.instants import Instant
from authz.domain.vocabulary import RoleDeclaration


class InactiveReason(StrEnum):
    """Why a membership gives no role. In order of how near it is to giving one."""

    DRAFT_COURSE = "DRAFT_COURSE"
    NOT_STARTED = "NOT_STARTED"
    INVITED = "INVITED"
    SUSPENDED = "SUSPENDED"
    ENDED = "ENDED"


class Grant(msgspec.Struct, frozen=True, gc=False):
    """What one membership says, but for whom and in which scope: only the kind of that counts."""

    kind: ScopeKind
    role: str
    status: MembershipStatus
    starts_at: Instant | None = None
    ends_at: Instant | None = None


def grant_of(membership: Membership) -> Grant:
    """The grant of a membership."""
    m = membership
    return Grant(m.scope.kind, m.role, m.status, m.starts_at, m.ends_at)


class EffectiveRoles(msgspec.Struct, frozen=True, gc=False):
    """What grants give together, and when time alone may change that.

    `in_course` and `in_session` say whether a grant there gives a role. `inactive_reason` is why some of
    them gives none: of several, the one nearest to giving a role. `next_change_at` is the earliest later
    instant at which a grant starts or ends, if any.
    """

    roles: frozenset[str]
    in_course: bool
    in_session: bool
    inactive_reason: InactiveReason | None
    next_change_at: Instant | None


_ORDER = {reason: place for place, reason in enumerate(InactiveReason)}


_NOTHING = EffectiveRoles(frozenset(), False, False, None, None)


def role_given(
    grant: Grant, course_state: CourseState | None, roles: Mapping[str, RoleDeclaration], now: Instant
) -> str | InactiveReason:
    """The role that one grant gives at `now`, else why it gives none.

    `course_state` is that of the resource's course, if it has one: it decides for the memberships in it and
    in its sessions.
    A role that the policy no longer declares gives none.
    """
    declared = roles.get(grant.role)
    if declared is None or declared.scope_kind is not grant.kind:
        return InactiveReason.ENDED
    status = grant.status
    role = grant.role
    if status is MembershipStatus.ACTIVE:
        if grant.starts_at is not None and now < grant.starts_at:
            return InactiveReason.NOT_STARTED
        if grant.ends_at is not None and now >= grant.ends_at:
            return InactiveReason.ENDED
    elif status is MembershipStatus.COMPLETED:
        if not declared.becomes:
            return InactiveReason.ENDED
        role = declared.becomes
    elif status is MembershipStatus.INVITED:
        return InactiveReason.INVITED
    else:
        return InactiveReason.SUSPENDED
    if course_state is None or grant.kind is ScopeKind.PLATFORM or course_state is CourseState.ACTIVE:
        return role
    if course_state is CourseState.DRAFT:
        return role if roles[role].works_in_drafts else InactiveReason.DRAFT_COURSE
    return roles[role].becomes or role


def effective_roles_of(
    grants: Sequence[Grant],
    course_state: CourseState | None,
    roles: Mapping[str, RoleDeclaration],
    now: Instant,
) -> EffectiveRoles:
    """What all of a subject's memberships in a resource's course, session and platform give."""
    if len(grants) == 1:
        grant = grants[0]
        if grant.starts_at is None is grant.ends_at:
            return _standing_of_one(grant, course_state, roles, now)
    elif not grants:
        return _NOTHING
    given: set[str] = set()
    in_course = in_session = False
    why: InactiveReason | None = None
    next_change_at: Instant | None = None
    for grant in grants:
        outcome = role_given(grant, course_state, roles, now)
        if isinstance(outcome, InactiveReason):
            if why is None or _ORDER[outcome] < _ORDER[why]:
                why = outcome
        else:
            given.add(outcome)
            if grant.kind is ScopeKind.COURSE:
                in_course = True
            elif grant.kind is ScopeKind.SESSION:
                in_session = True
        if grant.status is MembershipStatus.ACTIVE and not (grant.starts_at is None is grant.ends_at):
            next_change_at = earliest_after(now, next_change_at, grant.starts_at, grant.ends_at)
    return EffectiveRoles(frozenset(given), in_course, in_session, why, next_change_at)


def _standing_of_one(
    grant: Grant, course_state: CourseState | None, roles: Mapping[str, RoleDeclaration], now: Instant
) -> EffectiveRoles:
    """The same for one grant without dates, which is what nearly every question meets."""
    outcome = role_given(grant, course_state, roles, now)
    if isinstance(outcome, InactiveReason):
        return EffectiveRoles(_NOTHING.roles, False, False, outcome, None)
    kind = grant.kind
    return EffectiveRoles(_alone(outcome), kind is ScopeKind.COURSE, kind is ScopeKind.SESSION, None, None)


@lru_cache(maxsize=1024)
def _alone(role: str) -> frozenset[str]:
    """The set of one role, the same each time, so that it is hashed once."""
    return frozenset((role,))


def earliest_after(now: Instant, *instants: Instant | None) -> Instant | None:
    """The least of the instants that are later than `now`."""
    later = [instant for instant in instants if instant is not None and instant > now]
    return min(later, default=None)
