"""Which role a membership gives at a time, and why it gives none. Source: design of memberships."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from authz.domain.entities import Course, CourseState, Membership, MembershipStatus
from authz.domain.ids import ScopeKind
from authz.domain.instants import Instant
from authz.domain.vocabulary import RoleDeclaration


class Ineffective(StrEnum):
    """Why a membership gives no role. In order of how near it is to giving one."""

    DRAFT_COURSE = "DRAFT_COURSE"
    NOT_STARTED = "NOT_STARTED"
    INVITED = "INVITED"
    SUSPENDED = "SUSPENDED"
    ENDED = "ENDED"


class Standing(msgspec.Struct, frozen=True):
    """What memberships give together, and when time alone may change that.

    `ineffective` is why some of them gives none: of several, the one nearest to giving a role.
    `kinds` are the kinds of scope that gave a role. `edge` is the earliest later instant at which a
    membership starts or ends, if any.
    """

    roles: frozenset[str]
    kinds: frozenset[ScopeKind]
    ineffective: Ineffective | None
    edge: Instant | None


_ORDER = {reason: place for place, reason in enumerate(Ineffective)}
_OVER = (CourseState.CONCLUDED, CourseState.ARCHIVED)


def role_given(
    membership: Membership, course: Course | None, roles: Mapping[str, RoleDeclaration], now: Instant
) -> str | Ineffective:
    """The role that one membership gives at `now`, else why it gives none.

    `course` is that of the resource: it decides for the memberships in it and in its sessions.
    A role that the policy no longer declares gives none.
    """
    declared = roles.get(membership.role)
    if declared is None or declared.scope_kind is not membership.scope.kind:
        return Ineffective.ENDED
    role = declared.name
    if membership.status is MembershipStatus.COMPLETED:
        if not declared.becomes:
            return Ineffective.ENDED
        role = declared.becomes
    elif membership.status is MembershipStatus.ACTIVE:
        if membership.starts_at is not None and now < membership.starts_at:
            return Ineffective.NOT_STARTED
        if membership.ends_at is not None and now >= membership.ends_at:
            return Ineffective.ENDED
    elif membership.status is MembershipStatus.INVITED:
        return Ineffective.INVITED
    else:
        return Ineffective.SUSPENDED
    if course is None or membership.scope.kind is ScopeKind.PLATFORM:
        return role
    if course.state in _OVER:
        role = roles[role].becomes or role
    elif course.state is CourseState.DRAFT and not roles[role].works_in_drafts:
        return Ineffective.DRAFT_COURSE
    return role


def standing_of(
    memberships: tuple[Membership, ...],
    course: Course | None,
    roles: Mapping[str, RoleDeclaration],
    now: Instant,
) -> Standing:
    """What all of a subject's memberships in a resource's course, session and platform give."""
    given: set[str] = set()
    kinds: set[ScopeKind] = set()
    why: Ineffective | None = None
    edge: Instant | None = None
    for membership in memberships:
        outcome = role_given(membership, course, roles, now)
        if isinstance(outcome, Ineffective):
            if why is None or _ORDER[outcome] < _ORDER[why]:
                why = outcome
        else:
            given.add(outcome)
            kinds.add(membership.scope.kind)
        if membership.status is MembershipStatus.ACTIVE:
            edge = earliest_after(now, edge, membership.starts_at, membership.ends_at)
    return Standing(frozenset(given), frozenset(kinds), why, edge)


def earliest_after(now: Instant, *instants: Instant | None) -> Instant | None:
    """The least of the instants that are later than `now`."""
    later = [instant for instant in instants if instant is not None and instant > now]
    return min(later, default=None)
