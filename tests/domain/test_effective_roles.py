"""Which role a membership gives, in every status, course state and at every edge."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from authz.domain.context import earliest_after
from authz.domain.effective_roles import (
    EffectiveRoles,
    InactiveReason,
    MembershipTerms,
    Suspension,
    effective_roles_of,
    effective_roles_of_one,
    role_table,
    suspended_kinds,
)
from authz.domain.entities import CourseState, Membership, MembershipStatus
from authz.domain.ids import PLATFORM, Scope, ScopeKind, Subject, SubjectType, course_scope, session_scope
from authz.domain.vocabulary import RoleDeclaration
from tests.facts import terms_of

MAYA = Subject(SubjectType.USER, "maya")
HERE = course_scope("here")
ROLES = {
    role.name: role
    for role in (
        RoleDeclaration("author", ScopeKind.COURSE, 45, True, "student"),
        RoleDeclaration("teacher", ScopeKind.COURSE, 40, True, ""),
        RoleDeclaration("student", ScopeKind.COURSE, 20, False, "alumni"),
        RoleDeclaration("alumni", ScopeKind.COURSE, 10, False, ""),
        RoleDeclaration("host", ScopeKind.SESSION, 30, False, ""),
        RoleDeclaration("speaker", ScopeKind.SESSION, 25, False, "host"),
        RoleDeclaration("platform_admin", ScopeKind.PLATFORM, 100, False, ""),
    )
}
TABLE = role_table(tuple(ROLES.values()))
ACTIVE, DRAFT, CONCLUDED, ARCHIVED = (
    CourseState.ACTIVE,
    CourseState.DRAFT,
    CourseState.CONCLUDED,
    CourseState.ARCHIVED,
)


def held(role: str, scope: Scope = HERE, **more: object) -> MembershipTerms:
    return terms_of(Membership(subject=MAYA, scope=scope, role=role, **more))  # type: ignore[arg-type]  # open in tests


def given_by(membership: MembershipTerms, course: CourseState | None, now: int) -> str | InactiveReason:
    """The role, or why there is none; alike when it is the only membership."""
    one = effective_roles_of_one(membership, course, TABLE, now, suspended_kinds([membership], None, now))
    alone = effective_roles_of([membership], course, TABLE, now)
    assert (alone.roles, alone.inactive_reason) == (one.roles, one.inactive_reason)
    if one.inactive_reason is not None:
        assert not one.roles
        return one.inactive_reason
    (role,) = one.roles
    return role


@pytest.mark.parametrize(
    ("role", "status", "course", "given"),
    [
        ("teacher", "ACTIVE", ACTIVE, "teacher"),
        ("teacher", "ACTIVE", DRAFT, "teacher"),
        ("teacher", "ACTIVE", CONCLUDED, "teacher"),
        ("teacher", "ACTIVE", ARCHIVED, "teacher"),
        ("teacher", "COMPLETED", ACTIVE, InactiveReason.ENDED),
        ("teacher", "COMPLETED", DRAFT, InactiveReason.ENDED),
        ("teacher", "INVITED", DRAFT, InactiveReason.INVITED),
        ("teacher", "SUSPENDED", ARCHIVED, InactiveReason.SUSPENDED),
        ("student", "ACTIVE", ACTIVE, "student"),
        ("student", "ACTIVE", DRAFT, InactiveReason.DRAFT_COURSE),
        ("student", "ACTIVE", CONCLUDED, "alumni"),
        ("student", "ACTIVE", ARCHIVED, "alumni"),
        ("student", "COMPLETED", ACTIVE, "alumni"),
        ("student", "COMPLETED", DRAFT, InactiveReason.DRAFT_COURSE),
        ("student", "COMPLETED", CONCLUDED, "alumni"),
        ("student", "INVITED", CONCLUDED, InactiveReason.INVITED),
        ("student", "SUSPENDED", CONCLUDED, InactiveReason.SUSPENDED),
        ("author", "ACTIVE", DRAFT, "author"),
        ("author", "ACTIVE", CONCLUDED, "student"),
        ("author", "COMPLETED", ACTIVE, "student"),
        ("author", "COMPLETED", DRAFT, InactiveReason.DRAFT_COURSE),
        ("author", "COMPLETED", CONCLUDED, "alumni"),
        ("alumni", "ACTIVE", ACTIVE, "alumni"),
        ("alumni", "COMPLETED", ACTIVE, InactiveReason.ENDED),
    ],
)
def test_a_status_and_a_course_state_give_a_role_or_say_why_not(
    role: str, status: str, course: CourseState, given: str
) -> None:
    membership = held(role, status=MembershipStatus(status))
    assert given_by(membership, course, 0) == given


@pytest.mark.parametrize(
    ("now", "given"),
    [(9, InactiveReason.NOT_STARTED), (10, "student"), (19, "student"), (20, InactiveReason.ENDED)],
)
def test_a_membership_gives_its_role_from_its_start_until_just_before_its_end(now: int, given: str) -> None:
    assert given_by(held("student", starts_at=10, ends_at=20), ACTIVE, now) == given


@pytest.mark.parametrize("status", ["INVITED", "SUSPENDED"])
def test_dates_do_not_bring_back_what_a_status_took(status: str) -> None:
    membership = held("teacher", status=MembershipStatus(status), starts_at=0, ends_at=100)
    assert given_by(membership, ACTIVE, 50) == status


def test_a_completed_membership_keeps_its_remainder_after_its_end() -> None:
    membership = held("student", status=MembershipStatus.COMPLETED, starts_at=0, ends_at=10)
    assert given_by(membership, ACTIVE, 1000) == "alumni"


@pytest.mark.parametrize(
    "membership",
    [
        held("nothing_declared"),
        held("host"),
        held("teacher", session_scope("here")),
        held("student", PLATFORM),
    ],
    ids=str,
)
def test_a_role_that_is_not_declared_for_its_kind_of_scope_gives_none(membership: MembershipTerms) -> None:
    assert isinstance(given_by(membership, ACTIVE, 0), InactiveReason)


def test_a_session_role_follows_the_state_of_the_course() -> None:
    host = held("host", session_scope("s"))
    assert given_by(host, None, 0) == "host"
    assert given_by(host, ARCHIVED, 0) == "host"
    assert given_by(host, DRAFT, 0) is InactiveReason.DRAFT_COURSE
    speaker = held("speaker", session_scope("s"))
    assert given_by(speaker, None, 0) == "speaker"
    assert given_by(speaker, ARCHIVED, 0) == "host"


def test_a_platform_role_does_not_depend_on_the_state_of_a_course() -> None:
    for course in (None, DRAFT, ACTIVE, CONCLUDED, ARCHIVED):
        assert given_by(held("platform_admin", PLATFORM), course, 0) == "platform_admin"


def test_several_memberships_give_the_union_of_their_roles_and_kinds() -> None:
    held_roles = effective_roles_of(
        (held("teacher"), held("student"), held("host", session_scope("s"))), ACTIVE, TABLE, 0
    )
    assert held_roles.roles == {"teacher", "student", "host"}
    assert held_roles.in_course
    assert held_roles.in_session
    assert held_roles.inactive_reason is None
    assert held_roles.next_change_at is None


def test_nothing_held_is_nothing_given_and_nothing_to_explain() -> None:
    held_roles = effective_roles_of((), ACTIVE, TABLE, 0)
    assert held_roles == EffectiveRoles(frozenset(), False, False, None, None)


def test_of_several_that_give_nothing_the_one_nearest_to_giving_a_role_is_told() -> None:
    reasons = {
        InactiveReason.DRAFT_COURSE: held("student"),
        InactiveReason.NOT_STARTED: held("student", starts_at=50),
        InactiveReason.INVITED: held("student", status=MembershipStatus.INVITED),
        InactiveReason.ENDED: held("student", ends_at=0),
        InactiveReason.ROLE_NOT_DECLARED: held("grader"),
    }
    order = list(reasons)
    for nearer, farther in itertools.combinations(order, 2):
        for pair in ((reasons[nearer], reasons[farther]), (reasons[farther], reasons[nearer])):
            assert effective_roles_of(pair, DRAFT, TABLE, 0).inactive_reason is nearer


def test_the_edge_is_the_next_start_or_end_of_an_active_membership() -> None:
    memberships = (
        held("student", starts_at=10, ends_at=40),
        held("teacher", starts_at=20),
        held("alumni", status=MembershipStatus.SUSPENDED, starts_at=5),
        held("alumni", status=MembershipStatus.COMPLETED, ends_at=7),
    )
    dates = [
        effective_roles_of(memberships, ACTIVE, TABLE, now).next_change_at for now in (0, 9, 10, 20, 39, 40)
    ]
    assert dates == [10, 10, 20, 40, 40, None]


def test_earliest_after_is_strictly_after() -> None:
    assert earliest_after(5, None, 5, 4, 9, 6) == 6
    assert earliest_after(5, None, 5) is None
    assert earliest_after(5) is None


SUSPENDED = MembershipStatus.SUSPENDED
MONDAY = session_scope("monday")


@pytest.mark.parametrize(
    "others",
    [
        (held("teacher"),),
        (held("host", MONDAY),),
        (held("student", starts_at=0, ends_at=100), held("host", MONDAY)),
        (held("student", starts_at=50),),
        (held("student", status=MembershipStatus.INVITED),),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "suspended",
    [
        held("student", status=SUSPENDED),
        held("alumni", suspended_until=20),
        held("host", MONDAY, status=SUSPENDED),
    ],
    ids=str,
)
def test_a_suspension_is_of_a_person_in_a_scope_and_of_all_its_other_roles(
    suspended: MembershipTerms, others: tuple[MembershipTerms, ...]
) -> None:
    for memberships in ((suspended, *others), (*others, suspended)):
        roles = effective_roles_of(memberships, ACTIVE, TABLE, 10)
        assert (roles.roles, roles.in_course, roles.in_session) == (frozenset(), False, False)
        assert roles.inactive_reason is InactiveReason.SUSPENDED


def test_a_suspension_in_a_course_leaves_the_roles_on_the_platform_and_the_other_way_round() -> None:
    admin = held("platform_admin", PLATFORM)
    out = held("student", status=SUSPENDED)
    assert effective_roles_of((admin, out), ACTIVE, TABLE, 0).roles == {"platform_admin"}
    out = held("platform_admin", PLATFORM, status=SUSPENDED)
    assert effective_roles_of((held("student"), out), ACTIVE, TABLE, 0).roles == {"student"}


@pytest.mark.parametrize(("now", "roles"), [(19, set()), (20, {"student", "host"})])
def test_a_suspension_until_a_time_ends_by_itself_and_is_a_next_change(now: int, roles: set[str]) -> None:
    memberships = (held("student", suspended_until=20), held("host", MONDAY))
    found = effective_roles_of(memberships, ACTIVE, TABLE, now)
    assert found.roles == roles
    assert found.next_change_at == (20 if now < 20 else None)


@pytest.mark.parametrize(
    ("until", "now", "roles", "change"),
    [(None, 10, 0, None), (20, 19, 0, 20), (20, 20, 2, None), (5, 10, 2, None)],
)
def test_a_suspended_account_has_no_role_anywhere(
    until: int | None, now: int, roles: int, change: int | None
) -> None:
    memberships = (held("student"), held("platform_admin", PLATFORM))
    found = effective_roles_of(memberships, ACTIVE, TABLE, now, Suspension(until))
    assert len(found.roles) == roles
    assert found.next_change_at == change
    assert found.inactive_reason is (None if roles else InactiveReason.SUSPENDED)
    assert effective_roles_of((), ACTIVE, TABLE, now, Suspension(until)).inactive_reason is None


@pytest.mark.parametrize("dates", [{}, {"starts_at": 50}, {"ends_at": 100}], ids=str)
@pytest.mark.parametrize("status", [MembershipStatus.ACTIVE, MembershipStatus.INVITED], ids=str)
def test_a_role_that_the_policy_no_longer_declares_has_not_ended(
    status: MembershipStatus, dates: dict[str, Any]
) -> None:
    found = effective_roles_of((held("grader", status=status, **dates),), ACTIVE, TABLE, 10)
    assert (found.roles, found.inactive_reason) == (frozenset(), InactiveReason.ROLE_NOT_DECLARED)
