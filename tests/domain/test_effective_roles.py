"""Which role a membership gives, in every status, course state and at every edge."""

from __future__ import annotations

import itertools

import pytest

from authz.domain.effective_roles import (
    EffectiveRoles,
    Grant,
    InactiveReason,
    earliest_after,
    effective_roles_of,
    grant_of,
    role_given,
)
from authz.domain.entities import CourseState, Membership, MembershipStatus
from authz.domain.ids import PLATFORM, Scope, ScopeKind, Subject, SubjectType, course_scope, session_scope
from authz.domain.vocabulary import RoleDeclaration

MAYA = Subject(SubjectType.USER, "maya")
HERE = course_scope("here")
ROLES = {
    role.name: role
    for role in (
        RoleDeclaration("teacher", ScopeKind.COURSE, 40, True, ""),
        RoleDeclaration("student", ScopeKind.COURSE, 20, False, "alumni"),
        RoleDeclaration("alumni", ScopeKind.COURSE, 10, False, ""),
        RoleDeclaration("host", ScopeKind.SESSION, 30, False, ""),
        RoleDeclaration("platform_admin", ScopeKind.PLATFORM, 100, False, ""),
    )
}
ACTIVE, DRAFT, CONCLUDED, ARCHIVED = (
    CourseState.ACTIVE,
    CourseState.DRAFT,
    CourseState.CONCLUDED,
    CourseState.ARCHIVED,
)


def held(role: str, scope: Scope = HERE, **more: object) -> Grant:
    return grant_of(Membership(subject=MAYA, scope=scope, role=role, **more))  # type: ignore[arg-type]  # open in tests


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
        ("alumni", "ACTIVE", ACTIVE, "alumni"),
        ("alumni", "COMPLETED", ACTIVE, InactiveReason.ENDED),
    ],
)
def test_a_status_and_a_course_state_give_a_role_or_say_why_not(
    role: str, status: str, course: CourseState, given: str
) -> None:
    membership = held(role, status=MembershipStatus(status))
    assert role_given(membership, course, ROLES, 0) == given


@pytest.mark.parametrize(
    ("now", "given"),
    [(9, InactiveReason.NOT_STARTED), (10, "student"), (19, "student"), (20, InactiveReason.ENDED)],
)
def test_a_membership_gives_its_role_from_its_start_until_just_before_its_end(now: int, given: str) -> None:
    assert role_given(held("student", starts_at=10, ends_at=20), ACTIVE, ROLES, now) == given


@pytest.mark.parametrize("status", ["INVITED", "SUSPENDED"])
def test_dates_do_not_bring_back_what_a_status_took(status: str) -> None:
    membership = held("teacher", status=MembershipStatus(status), starts_at=0, ends_at=100)
    assert role_given(membership, ACTIVE, ROLES, 50) == status


def test_a_completed_membership_keeps_its_remainder_after_its_end() -> None:
    membership = held("student", status=MembershipStatus.COMPLETED, starts_at=0, ends_at=10)
    assert role_given(membership, ACTIVE, ROLES, 1000) == "alumni"


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
def test_a_role_that_is_not_declared_for_its_kind_of_scope_gives_none(membership: Grant) -> None:
    assert isinstance(role_given(membership, ACTIVE, ROLES, 0), InactiveReason)


def test_a_session_role_follows_the_state_of_the_course() -> None:
    host = held("host", session_scope("s"))
    assert role_given(host, None, ROLES, 0) == "host"
    assert role_given(host, ARCHIVED, ROLES, 0) == "host"
    assert role_given(host, DRAFT, ROLES, 0) is InactiveReason.DRAFT_COURSE


def test_a_platform_role_does_not_depend_on_the_state_of_a_course() -> None:
    for course in (None, DRAFT, ACTIVE, CONCLUDED, ARCHIVED):
        assert role_given(held("platform_admin", PLATFORM), course, ROLES, 0) == "platform_admin"


def test_several_memberships_give_the_union_of_their_roles_and_kinds() -> None:
    standing = effective_roles_of(
        (held("teacher"), held("student"), held("host", session_scope("s"))), ACTIVE, ROLES, 0
    )
    assert standing.roles == {"teacher", "student", "host"}
    assert standing.in_course
    assert standing.in_session
    assert standing.inactive_reason is None
    assert standing.next_change_at is None


def test_nothing_held_is_nothing_given_and_nothing_to_explain() -> None:
    standing = effective_roles_of((), ACTIVE, ROLES, 0)
    assert standing == EffectiveRoles(frozenset(), False, False, None, None)


def test_of_several_that_give_nothing_the_one_nearest_to_giving_a_role_is_told() -> None:
    reasons = {
        InactiveReason.DRAFT_COURSE: held("student"),
        InactiveReason.NOT_STARTED: held("student", starts_at=50),
        InactiveReason.INVITED: held("student", status=MembershipStatus.INVITED),
        InactiveReason.SUSPENDED: held("student", status=MembershipStatus.SUSPENDED),
        InactiveReason.ENDED: held("student", ends_at=0),
    }
    order = list(reasons)
    for nearer, farther in itertools.combinations(order, 2):
        for pair in ((reasons[nearer], reasons[farther]), (reasons[farther], reasons[nearer])):
            assert effective_roles_of(pair, DRAFT, ROLES, 0).inactive_reason is nearer


def test_the_edge_is_the_next_start_or_end_of_an_active_membership() -> None:
    memberships = (
        held("student", starts_at=10, ends_at=40),
        held("teacher", starts_at=20),
        held("alumni", status=MembershipStatus.SUSPENDED, starts_at=5),
        held("alumni", status=MembershipStatus.COMPLETED, ends_at=7),
    )
    edges = [
        effective_roles_of(memberships, ACTIVE, ROLES, now).next_change_at for now in (0, 9, 10, 20, 39, 40)
    ]
    assert edges == [10, 10, 20, 40, 40, None]


def test_earliest_after_is_strictly_after() -> None:
    assert earliest_after(5, None, 5, 4, 9, 6) == 6
    assert earliest_after(5, None, 5) is None
    assert earliest_after(5) is None
