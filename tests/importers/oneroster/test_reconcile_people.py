"""What an import does to people: rows at fault, what a person gave by hand, and users."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from authz.domain.entities import Account, AccountStatus, Course, CourseState, MembershipStatus
from authz.domain.ids import parse_subject
from authz.importers.oneroster.rows import ReadOptions
from tests.importers.exports import Campus, Row, at, by_hand, enrolled, klass, user
from tests.importers.oneroster.plans import (
    COMPLETED,
    DELTA,
    ROSTER,
    SUSPENDED,
    WAYS_TO_SUSPEND,
    changed,
    changes,
    faults,
    notes,
    suspend,
)

# Rows at fault.


@pytest.mark.parametrize(
    "row",
    [
        enrolled("e1", "alg", "maya", status="inactive"),
        enrolled("e1", "alg", "maya", end="06/30/2020"),
        enrolled("e1", "alg", "maya", "guardian"),
        enrolled("e1", "alg", ""),
        enrolled("e1", "", "maya"),
        enrolled("e9", "alg", "maya", "guardian"),
        enrolled("e1", "nowhere", "maya"),
    ],
)
@pytest.mark.parametrize("modes", [None, ROSTER])
def test_a_row_at_fault_suspends_what_it_spoke_of_until_it_is_corrected(
    campus: Campus, row: Row, modes: dict[str, str] | None
) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")], modes=modes)
    plan = campus.take_in([row], modes=modes)
    assert changes(plan)[0].startswith(
        "suspended enrollments.csv:2: membership user:maya student in course:alg (ACTIVE -> SUSPENDED: the "
        "row is at fault"
    )
    assert (len(plan.faults), campus.only("maya").status, plan.ended) == (1, SUSPENDED, 1)
    campus.take_in([enrolled("e1", "alg", "maya")], modes=modes)
    assert campus.roles("maya") == {"student in alg"}


def test_rows_at_fault_are_told_in_the_order_of_the_file(campus: Campus) -> None:
    rows = [enrolled("e1", "nowhere", "maya"), enrolled("e2", "alg", "omar", "guardian")]
    rows += [
        enrolled("e3", "alg", "nora"),
        enrolled("e3", "alg", "nora"),
        enrolled("e4", "elsewhere", "nora"),
    ]
    rows += [enrolled("e5", "alg", "lina", "Student"), enrolled("e6", "alg", "omar", "parent")]
    plan = campus.take_in(rows, modes=ROSTER)
    assert [fault.line for fault in plan.faults] == [2, 3, 6, 8]
    assert [note.line for note in plan.notes if note.file == "enrollments.csv"] == [5, 7]


def test_a_row_at_fault_leaves_what_another_row_gives(campus: Campus) -> None:
    rows = [enrolled("e1", "alg", "maya"), enrolled("e2", "alg", "maya", "guardian")]
    campus.take_in(rows)
    campus.take_in(rows)
    assert campus.roles("maya") == {"student in alg"}


def test_a_row_at_fault_suspends_neither_other_people_nor_other_sources(campus: Campus) -> None:
    rows = [enrolled("e1", "alg", "maya"), enrolled("e2", "alg", "omar"), enrolled("e3", "bio", "maya")]
    classes = [klass("alg"), klass("bio")]
    campus.take_in(rows, classes=classes)
    campus.write(by_hand("maya", role="auditor"))
    campus.take_in([enrolled("e1", "alg", "maya", "guardian")], classes=classes)
    assert campus.roles("maya") == {"student in bio", "auditor in alg"}
    assert campus.roles("omar") == {"student in alg"}


def test_a_delta_without_the_row_leaves_the_suspension(campus: Campus) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")])
    campus.take_in([enrolled("e1", "alg", "maya", "guardian")])
    campus.take_in([changed("e2", "omar")], classes=None, modes=DELTA)
    assert campus.roles("maya") == set()


def test_an_enrollment_needs_its_class_and_its_user(campus: Campus) -> None:
    rows = [enrolled("e1", "bio", "maya"), enrolled("e2", "alg", "omar")]
    assert faults(campus.take_in(rows)) == [
        "enrollments.csv:2: names class `bio`, which is neither in classes.csv nor a course"
    ]
    campus.write(Course(id="bio", state=CourseState.ACTIVE))
    plan = campus.take_in(rows, users=[user("maya")], modes=ROSTER | {"users": "bulk"})
    assert faults(plan) == [
        "enrollments.csv:2: names class `bio`, which is not in classes.csv",
        "enrollments.csv:3: names user `omar`, who is not in users.csv",
    ]
    assert (campus.of("maya"), campus.roles("omar")) == ([], set())


# What a person gave.


@pytest.mark.parametrize("source", ["admin", ""])
@pytest.mark.parametrize(
    "rows",
    [
        [enrolled("e1", "alg", "maya")],
        [enrolled("e1", "alg", "maya", status="tobedeleted")],
        [enrolled("", "alg", "maya", status="tobedeleted")],
        [enrolled("e1", "alg", "maya", "guardian")],
        [],
    ],
)
@pytest.mark.parametrize("modes", [None, ROSTER])
def test_a_membership_of_another_source_is_left_as_it_is(
    campus: Campus, source: str, rows: list[Row], modes: dict[str, str] | None
) -> None:
    given = by_hand("maya", source=source, source_ref="e1", ends_at=at("2026-10-07"))
    campus.write(given)
    plan = campus.take_in(rows, modes=modes)
    assert campus.of("maya") == [given]
    owner = "source `admin`" if source else "no source"
    if rows == [enrolled("e1", "alg", "maya")]:
        assert notes(plan) == [
            f"enrollments.csv:2: membership user:maya student in course:alg is of {owner}; it is not the "
            "roster's to change and stays as it is"
        ]


def test_two_rosters_leave_each_other_alone(campus: Campus) -> None:
    north, south = ReadOptions(source="north"), ReadOptions(source="south")
    campus.take_in([enrolled("e1", "alg", "maya")], modes=ROSTER, options=north)
    campus.take_in([enrolled("e1", "alg", "omar")], modes=ROSTER, options=south)
    assert (campus.roles("maya"), campus.roles("omar")) == ({"student in alg"}, {"student in alg"})


@pytest.mark.parametrize("fields", [*WAYS_TO_SUSPEND, {"status": COMPLETED}])
def test_what_a_person_suspended_or_completed_stays_so(campus: Campus, fields: dict[str, Any]) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")])
    suspend(campus, "maya", **fields)
    plan = campus.take_in([enrolled("e1", "alg", "maya")])
    stays = (
        "enrollments.csv:2: membership user:maya student in course:alg stays suspended; only the person who "
        "suspended it may lift that"
    )
    assert (changes(plan), notes(plan)) == ([], [stays] if fields in WAYS_TO_SUSPEND else [])
    for role, end in (("student", "2026-12-20"), ("teacher", "")):
        campus.take_in([enrolled("e1", "alg", "maya", role, end=end)], users=[user("maya")])
        found = campus.only("maya")
        assert (found.role, found.ends_at) == (role, at(end) if end else None)
        assert msgspec.structs.replace(found, **fields) == found


@pytest.mark.parametrize("how", WAYS_TO_SUSPEND)
@pytest.mark.parametrize("modes", [None, ROSTER])
def test_a_suspension_by_hand_outlives_the_enrollment(
    campus: Campus, modes: dict[str, str] | None, how: dict[str, Any]
) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")], modes=modes)
    suspend(campus, "maya", **how)
    gone = [] if modes else [enrolled("e1", "alg", "maya", status="tobedeleted")]
    campus.take_in(gone, modes=modes)
    for rows in ([enrolled("e1", "alg", "maya")], [enrolled("e2", "alg", "maya")]):
        campus.take_in(rows, modes=modes)
        assert campus.is_suspended(campus.only("maya"))


@pytest.mark.parametrize("how", WAYS_TO_SUSPEND)
@pytest.mark.parametrize(
    "row",
    [enrolled("e1", "alg", "nora"), enrolled("e1", "bio", "maya"), enrolled("e1", "alg", "maya", "aide")],
)
def test_a_suspension_by_hand_outlives_a_move_of_the_enrollment(
    campus: Campus, row: Row, how: dict[str, Any]
) -> None:
    classes = [klass("alg"), klass("bio")]
    campus.take_in([enrolled("e1", "alg", "maya")], classes=classes)
    suspend(campus, "maya", **how)
    campus.take_in([row], classes=classes)
    assert (campus.roles("maya"), any(map(campus.is_suspended, campus.of("maya")))) == (set(), True)
    campus.take_in([row, enrolled("e2", "alg", "maya", row["role"])], classes=classes)
    assert "student in alg" not in campus.roles("maya")
    assert campus.roles("nora") == ({"student in alg"} if row["userSourcedId"] == "nora" else set())


def test_a_suspension_until_a_time_outlives_that_by_the_roster(campus: Campus) -> None:
    rows = [enrolled("e1", "alg", "maya")]
    campus.take_in(rows)
    suspend(campus, "maya", suspended_until=at("2096-01-01"))
    campus.take_in(rows, users=[user("maya", enabledUser="false")])
    assert campus.only("maya").status is SUSPENDED
    campus.take_in(rows, users=[user("maya")])
    found = campus.only("maya")
    assert (found.status, found.suspended_until) == (MembershipStatus.ACTIVE, at("2096-01-01"))


def test_who_is_reinstated_by_hand_stays_so(campus: Campus) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")], users=[user("maya", enabledUser="false")])
    campus.write(msgspec.structs.replace(campus.only("maya"), status=MembershipStatus.ACTIVE))
    campus.take_in([enrolled("e1", "alg", "maya")])
    assert campus.roles("maya") == {"student in alg"}


# Users.


@pytest.mark.parametrize(
    "row", [user("maya", "tobedeleted"), user("maya", enabledUser="false"), user("maya", "unheard-of")]
)
def test_a_user_who_is_deleted_or_disabled_is_suspended_until_enabled(campus: Campus, row: Row) -> None:
    rows = [enrolled("e1", "alg", "maya"), enrolled("e2", "alg", "omar")]
    campus.take_in(rows)
    campus.take_in(rows, users=[row, user("omar")])
    assert (campus.roles("maya"), campus.roles("omar")) == (set(), {"student in alg"})
    # Nor does an export without users open it, or one more enrollment.
    campus.take_in([*rows, enrolled("e3", "alg", "maya", "aide")])
    assert campus.roles("maya") == set()
    campus.take_in(
        None,
        classes=None,
        users=[user("maya", "active", dateLastModified="2026-09-09")],
        modes={"users": "delta"},
    )
    assert campus.roles("maya") == {"student in alg", "teaching_assistant in alg"}


def test_a_disabled_user_of_a_first_import_gets_a_suspended_membership(campus: Campus) -> None:
    plan = campus.take_in([enrolled("e1", "alg", "maya")], users=[user("maya", enabledUser="false")])
    assert changes(plan)[-1] == (
        "added enrollments.csv:2: membership user:maya student in course:alg (SUSPENDED: the user is "
        "deleted, disabled or at fault)"
    )
    assert campus.roles("maya") == set()


def test_an_enabled_user_lifts_no_suspension_that_a_row_at_fault_or_a_person_gave(campus: Campus) -> None:
    campus.take_in([enrolled("e1", "alg", "maya"), enrolled("e2", "alg", "omar")])
    suspend(campus, "omar")
    campus.take_in(
        [enrolled("e1", "alg", "maya", "guardian")],
        users=[user("maya", enabledUser="false"), user("omar", enabledUser="false")],
    )
    campus.take_in(
        None,
        classes=None,
        users=[
            user("maya", "active", dateLastModified="2026-09-09"),
            user("omar", "active", dateLastModified="2026-09-09"),
        ],
        modes={"users": "delta"},
    )
    assert (campus.roles("maya"), campus.roles("omar")) == (set(), set())
    campus.take_in([enrolled("e1", "alg", "maya"), enrolled("e2", "alg", "omar")])
    assert (campus.roles("maya"), campus.roles("omar")) == ({"student in alg"}, set())


@pytest.mark.parametrize("row", [user("maya", "tobedeleted"), user("maya", enabledUser="false")])
def test_a_user_who_is_deleted_or_disabled_is_shut_out_until_a_person_lifts_it(
    campus: Campus, row: Row
) -> None:
    plan = campus.take_in(users=[row])
    assert changes(plan)[0] == "suspended users.csv:2: account of user:maya"
    suspended = Account(subject=parse_subject("user:maya"), status=AccountStatus.SUSPENDED)
    assert campus.account("maya") == suspended
    plan = campus.take_in(users=[user("maya")])
    assert campus.account("maya") == suspended
    assert notes(plan) == ["users.csv:2: account of user:maya stays suspended; only a person may lift that"]


def test_a_suspension_of_an_account_until_a_time_loses_its_end(campus: Campus) -> None:
    until = Account(
        subject=parse_subject("user:maya"), status=AccountStatus.SUSPENDED, suspended_until=at("2026-12-01")
    )
    campus.write(until)
    assert notes(campus.take_in(users=[user("maya")])) != []
    assert campus.account("maya") == until
    plan = campus.take_in(users=[user("maya", "tobedeleted")])
    assert changes(plan) == [
        "suspended users.csv:2: account of user:maya (suspended_until 2026-12-01T00:00:00Z -> none)"
    ]


@pytest.mark.parametrize("row", [user("maya", "unheard-of"), user("omar")])
def test_an_account_is_suspended_for_a_row_that_says_so_alone(campus: Campus, row: Row) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")])
    campus.take_in(None, classes=None, users=[row], modes={"users": "bulk"})
    assert campus.account("maya") is None


def test_what_has_ended_is_not_suspended_as_well(campus: Campus) -> None:
    campus.take_in([enrolled("e1", "alg", "maya", end="2025-06-30")])
    plan = campus.take_in([], users=[user("maya", "tobedeleted")])
    assert changes(plan) == ["suspended users.csv:2: account of user:maya"]


def test_a_user_who_is_absent_from_a_bulk_file_has_left(campus: Campus) -> None:
    campus.take_in([enrolled("e1", "alg", "maya"), enrolled("e2", "alg", "omar")])
    plan = campus.take_in(None, classes=None, users=[user("omar")], modes={"users": "bulk"})
    assert changes(plan) == ["removed users.csv: membership user:maya student in course:alg"]
    assert (campus.of("maya"), plan.absent) == ([], 1)
