"""What an export changes in a directory: what ends access ends it, and what a person gave stays."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from authz.domain.entities import (
    Account,
    AccountStatus,
    Course,
    CourseKey,
    CourseState,
    Membership,
    MembershipStatus,
)
from authz.domain.errors import FailedPreconditionError
from authz.domain.ids import parse_subject
from authz.domain.mutations import Operation
from authz.importers.oneroster.plan import Plan
from authz.importers.oneroster.rows import ReadOptions
from tests.importers.exports import BULK, NOW, Campus, Row, at, by_hand, enrolled, klass, user

SUSPENDED, COMPLETED = MembershipStatus.SUSPENDED, MembershipStatus.COMPLETED
ROSTER = {"classes": "bulk", "enrollments": "bulk"}
DELTA = {"enrollments": "delta"}


@pytest.fixture
def campus(tmp_path: Path) -> Campus:
    """A directory without any record."""
    return Campus(tmp_path)


def faults(plan: Plan) -> list[str]:
    return [str(fault) for fault in plan.faults]


def notes(plan: Plan) -> list[str]:
    return [str(note) for note in plan.notes if note.file != "manifest.csv"]


def changes(plan: Plan) -> list[str]:
    return [f"{change.action.value} {change}" for change in plan.changes]


def suspend(campus: Campus, *subjects: str) -> None:
    for subject in subjects:
        campus.write(*(msgspec.structs.replace(each, status=SUSPENDED) for each in campus.of(subject)))


def changed(
    ref: str, user_id: str, status: str = "active", modified: str = "2026-09-10", **others: str
) -> Row:
    """A row of a delta."""
    return enrolled(ref, "alg", user_id, status=status, modified=modified, **others)


# Adding, changing, removing.


def test_classes_and_enrollments_become_courses_and_memberships(campus: Campus) -> None:
    plan = campus.take_in([enrolled("e1", "alg", "maya", end="2026-12-20")])
    assert changes(plan) == [
        "added classes.csv:2: course:alg",
        "added enrollments.csv:2: membership user:maya student in course:alg (until 2026-12-20T00:00:00Z)",
    ]
    assert campus.course("alg").state is CourseState.ACTIVE
    maya = campus.only("maya")
    assert (maya.source, maya.source_ref, maya.ends_at) == ("oneroster", "e1", at("2026-12-20"))


def test_a_change_is_told_field_by_field(campus: Campus) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")])
    plan = campus.take_in([enrolled("e1", "alg", "maya", begin="2026-09-01", end="2026-12-20")])
    assert changes(plan) == [
        "changed enrollments.csv:2: membership user:maya student in course:alg (starts_at none -> "
        "2026-09-01T00:00:00Z, ends_at none -> 2026-12-20T00:00:00Z)"
    ]
    assert plan.unchanged == 1


@pytest.mark.parametrize("state", [CourseState.DRAFT, CourseState.ARCHIVED, CourseState.CONCLUDED])
def test_a_course_keeps_the_state_and_settings_that_a_person_gave(campus: Campus, state: CourseState) -> None:
    course = Course(id="alg", state=state, ai_enabled=True)
    campus.write(course)
    campus.take_in([enrolled("e1", "alg", "maya")])
    assert campus.course("alg") == course
    assert campus.roles("maya") == {"student in alg"}


def test_who_is_absent_from_a_bulk_file_has_left(campus: Campus) -> None:
    campus.take_in([enrolled("e1", "alg", "maya"), enrolled("e2", "alg", "omar")], modes=ROSTER)
    plan = campus.take_in([enrolled("e2", "alg", "omar")], modes=ROSTER)
    assert changes(plan) == ["removed enrollments.csv: membership user:maya student in course:alg"]
    assert (campus.of("maya"), campus.roles("omar")) == ([], {"student in alg"})


@pytest.mark.parametrize("modes", [None, DELTA, {"classes": "bulk", "enrollments": "delta"}])
def test_who_is_absent_from_another_file_stays(campus: Campus, modes: dict[str, str] | None) -> None:
    campus.take_in([changed("e1", "maya")])
    classes = [klass("alg")] if modes is None or "classes" in modes else None
    assert changes(campus.take_in([], classes=classes, modes=modes)) == []
    assert campus.roles("maya") == {"student in alg"}


def test_a_file_that_is_absent_changes_nothing(campus: Campus) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")])
    assert changes(campus.take_in(None, classes=None, modes={})) == []


def test_an_enrollment_that_returns_to_a_bulk_file_is_active_again(campus: Campus) -> None:
    for rows in ([enrolled("e1", "alg", "maya")], [], [enrolled("e1", "alg", "maya")]):
        campus.take_in(rows, modes=ROSTER)
    assert campus.roles("maya") == {"student in alg"}


@pytest.mark.parametrize("modes", [None, BULK | {"users": "absent", "academicSessions": "absent"}])
def test_what_is_to_be_deleted_goes(campus: Campus, modes: dict[str, str] | None) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")], modes=modes)
    plan = campus.take_in([enrolled("e1", "", "", "", status="tobedeleted")], modes=modes)
    assert changes(plan) == ["removed enrollments.csv:2: membership user:maya student in course:alg"]
    assert campus.of("maya") == []


@pytest.mark.parametrize(
    ("row", "roles"),
    [
        (enrolled("e1", "alg", "maya", "teacher"), {"teacher in alg"}),
        (enrolled("e1", "bio", "maya"), {"student in bio"}),
        (enrolled("e1", "alg", "nora"), set()),
    ],
)
def test_what_an_enrollment_was_before_goes_when_it_says_something_else(
    campus: Campus, row: Row, roles: set[str]
) -> None:
    classes = [klass("alg"), klass("bio")]
    campus.take_in([enrolled("e1", "alg", "maya")], classes=classes)
    plan = campus.take_in([row], classes=classes)
    assert [each.mutation.operation for each in plan.changes] == [Operation.DELETE, Operation.TOUCH]
    assert campus.roles("maya") == roles
    assert plan.ended == 0


def test_enrollments_that_swap_what_they_say_stay(campus: Campus) -> None:
    campus.take_in([enrolled("e1", "alg", "maya"), enrolled("e2", "alg", "omar")])
    campus.take_in([enrolled("e2", "alg", "maya"), enrolled("e1", "alg", "omar")])
    assert (campus.roles("maya"), campus.roles("omar")) == ({"student in alg"}, {"student in alg"})


# Rows of one membership, and the order of exports.


def test_a_deletion_is_of_its_own_enrollment_alone(campus: Campus) -> None:
    old = enrolled("e1", "alg", "maya", status="tobedeleted")
    for _ in range(2):
        campus.take_in([old, enrolled("e2", "alg", "maya")])
        assert campus.only("maya").source_ref == "e2"
    assert changes(campus.take_in([old])) == []
    assert campus.roles("maya") == {"student in alg"}


def test_without_a_sourced_id_a_deletion_is_of_the_membership(campus: Campus) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")])
    campus.take_in([enrolled("", "alg", "maya", status="tobedeleted")])
    assert campus.of("maya") == []


@pytest.mark.parametrize(
    ("rows", "kept", "why"),
    [
        (
            [enrolled("e1", "alg", "maya"), enrolled("e2", "alg", "maya", end="2027-01-01")],
            "e1",
            "enrollments.csv:3: membership user:maya student in course:alg is also on line 2, which is in "
            "effect longer; skipped",
        ),
        (
            [
                changed("e1", "maya", modified="2026-01-01"),
                changed("e2", "maya", modified="2026-01-02", end="2027-01-01"),
            ],
            "e2;modified=2026-01-02T00:00:00Z",
            "enrollments.csv:2: membership user:maya student in course:alg is also on line 3, which is "
            "newer; skipped",
        ),
        (
            [enrolled("e1", "alg", "maya"), enrolled("e1", "alg", "maya")],
            "e1",
            "enrollments.csv:3: membership user:maya student in course:alg is also on line 2, which says the "
            "same; skipped",
        ),
    ],
)
def test_of_two_rows_for_one_membership_one_counts(
    campus: Campus, rows: list[Row], kept: str, why: str
) -> None:
    plan = campus.take_in(rows)
    assert (campus.only("maya").source_ref, notes(plan)) == (kept, [why])
    campus.take_in(rows[::-1])
    assert campus.only("maya").source_ref == kept


@pytest.mark.parametrize("order", [1, -1])
def test_of_one_enrollment_that_is_active_and_deleted_the_newer_row_counts(
    campus: Campus, order: int
) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")])
    rows = [changed("e1", "maya", modified="2026-09-02"), changed("e1", "maya", "tobedeleted", "2026-09-01")]
    campus.take_in(rows[::order])
    assert campus.roles("maya") == {"student in alg"}
    campus.take_in([row | {"dateLastModified": ""} for row in rows[::order]])
    assert campus.roles("maya") == set()


def test_an_older_export_changes_nothing_that_a_newer_one_said(campus: Campus) -> None:
    first = [changed("e1", "maya", modified="2026-09-01"), changed("e2", "omar", modified="2026-09-01")]
    second = [
        changed("e1", "maya", modified="2026-09-02", end="2026-12-20"),
        changed("e2", "omar", "tobedeleted", "2026-09-02"),
    ]
    campus.take_in(first)
    campus.take_in(second, classes=None, modes=DELTA)
    held = dict(campus.held)
    assert (campus.only("maya").ends_at, campus.roles("omar")) == (at("2026-12-20"), set())
    for modes in (None, DELTA, ROSTER):
        plan = campus.take_in(first, classes=None if modes == DELTA else [klass("alg")], modes=modes)
        assert campus.held == held
        assert notes(plan) == [
            f"enrollments.csv:{line}: enrollment `{ref}` is older than in an earlier import; skipped"
            for line, ref in ((2, "e1"), (3, "e2"))
        ]
    campus.take_in([changed("e2", "omar", modified="2026-09-03")])
    assert campus.roles("omar") == {"student in alg"}


def test_an_older_bulk_export_does_not_bring_back_who_is_absent_from_a_newer_one(campus: Campus) -> None:
    maya, omar = changed("e1", "maya", modified="2026-09-01"), changed("e2", "omar", modified="2026-09-02")
    campus.take_in([maya], modes=ROSTER)
    campus.take_in([omar], modes=ROSTER)
    assert campus.roles("maya") == set()
    campus.take_in([maya], modes=DELTA, classes=None)
    assert campus.roles("maya") == set()


def test_an_older_delta_does_not_bring_back_who_is_absent_from_a_bulk_export_without_dates(
    campus: Campus,
) -> None:
    delta = [changed("e1", "maya", modified="2026-09-01")]
    campus.take_in(delta)
    campus.take_in([], modes=ROSTER)
    campus.take_in(delta, classes=None, modes=DELTA)
    assert campus.roles("maya") == set()
    campus.take_in([enrolled("e1", "alg", "maya")], modes=ROSTER)
    assert campus.roles("maya") == {"student in alg"}


def test_an_older_export_gives_no_other_enrollment_of_what_has_ended_since(campus: Campus) -> None:
    campus.take_in([changed("e2", "maya", modified="2026-09-01")])
    campus.take_in([changed("e2", "maya", "tobedeleted", "2026-09-05")], modes=DELTA, classes=None)
    older = campus.take_in([changed("e1", "maya", modified="2026-09-02")], modes=DELTA, classes=None)
    assert campus.roles("maya") == set()
    assert notes(older) == [
        "enrollments.csv:2: membership user:maya student in course:alg ended after this export was made; "
        "skipped"
    ]
    newer = [changed("e1", "maya", modified="2026-09-02"), changed("e3", "omar", modified="2026-09-06")]
    campus.take_in(newer, modes=DELTA, classes=None)
    assert campus.roles("maya") == {"student in alg"}


@pytest.mark.parametrize("gone", [{"status": "tobedeleted", "modified": "2026-10-02"}, {"role": "guardian"}])
def test_a_date_in_the_future_does_not_make_what_ends_access_an_older_row(
    campus: Campus, gone: dict[str, str]
) -> None:
    campus.take_in([changed("e1", "maya", modified="2062-01-01")])
    campus.now = at("2026-10-03")
    campus.take_in([changed("e1", "maya", **({"modified": "2026-10-02"} | gone))])
    assert campus.roles("maya") == set()
    campus.take_in([changed("e1", "maya", modified="2026-10-02T12:00:00Z")])
    assert campus.roles("maya") == {"student in alg"}


def test_a_deletion_in_the_future_ends_access_now(campus: Campus) -> None:
    campus.take_in([changed("e1", "maya", begin="2026-11-01")])
    campus.take_in([changed("e1", "maya", "tobedeleted", "2030-01-01")])
    assert campus.only("maya").ends_at == NOW + 3600 * 1_000_000


def test_a_delta_does_not_shorten_what_another_enrollment_gives(campus: Campus) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")])
    campus.take_in([changed("e2", "maya", end="2026-12-20")], classes=None, modes=DELTA)
    assert campus.only("maya").source_ref == "e1"
    campus.take_in([enrolled("e2", "alg", "maya", end="2026-12-20")], modes=ROSTER)
    assert (campus.only("maya").source_ref, campus.only("maya").ends_at) == ("e2", at("2026-12-20"))


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


@pytest.mark.parametrize("status", [SUSPENDED, COMPLETED])
def test_what_a_person_suspended_or_completed_stays_so(campus: Campus, status: MembershipStatus) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")])
    campus.write(msgspec.structs.replace(campus.only("maya"), status=status))
    plan = campus.take_in([enrolled("e1", "alg", "maya")])
    stays = (
        "enrollments.csv:2: membership user:maya student in course:alg stays suspended; only the person who "
        "suspended it may lift that"
    )
    assert (changes(plan), notes(plan)) == ([], [stays] if status is SUSPENDED else [])
    campus.take_in([enrolled("e1", "alg", "maya", end="2026-12-20")], users=[user("maya")])
    assert (campus.only("maya").status, campus.only("maya").ends_at) == (status, at("2026-12-20"))
    campus.take_in([enrolled("e1", "alg", "maya", "teacher")])
    assert (campus.only("maya").status, campus.only("maya").role) == (status, "teacher")


@pytest.mark.parametrize("modes", [None, ROSTER])
def test_a_suspension_by_hand_outlives_the_enrollment(campus: Campus, modes: dict[str, str] | None) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")], modes=modes)
    suspend(campus, "maya")
    gone = [] if modes else [enrolled("e1", "alg", "maya", status="tobedeleted")]
    campus.take_in(gone, modes=modes)
    for rows in ([enrolled("e1", "alg", "maya")], [enrolled("e2", "alg", "maya")]):
        campus.take_in(rows, modes=modes)
        assert campus.only("maya").status is SUSPENDED


@pytest.mark.parametrize(
    "row",
    [enrolled("e1", "alg", "nora"), enrolled("e1", "bio", "maya"), enrolled("e1", "alg", "maya", "aide")],
)
def test_a_suspension_by_hand_outlives_a_move_of_the_enrollment(campus: Campus, row: Row) -> None:
    classes = [klass("alg"), klass("bio")]
    campus.take_in([enrolled("e1", "alg", "maya")], classes=classes)
    suspend(campus, "maya")
    campus.take_in([row], classes=classes)
    assert (campus.roles("maya"), SUSPENDED in {each.status for each in campus.of("maya")}) == (set(), True)
    campus.take_in([row, enrolled("e2", "alg", "maya", row["role"])], classes=classes)
    assert "student in alg" not in campus.roles("maya")
    assert campus.roles("nora") == ({"student in alg"} if row["userSourcedId"] == "nora" else set())


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


# Classes and terms.


def test_a_class_that_is_to_be_deleted_concludes_its_course_and_returns(campus: Campus) -> None:
    rows = [enrolled("e1", "alg", "maya"), enrolled("e2", "alg", "omar", status="tobedeleted")]
    campus.take_in(rows)
    plan = campus.take_in(rows, classes=[klass("alg", "tobedeleted")])
    assert changes(plan)[0] == "changed classes.csv:2: course:alg (ACTIVE -> CONCLUDED)"
    assert (campus.course("alg").state, plan.ended) == (CourseState.CONCLUDED, 1)
    assert campus.roles("maya") == {"student in alg"}
    marker = next(
        each for each in campus.held.values() if isinstance(each, Membership) and each.source_ref == "class"
    )
    assert (str(marker.subject), marker.status) == ("service:oneroster", SUSPENDED)
    campus.take_in(rows)
    assert campus.course("alg").state is CourseState.ACTIVE
    assert marker.key not in campus.held


@pytest.mark.parametrize("state", [CourseState.DRAFT, CourseState.ARCHIVED])
def test_a_class_that_is_to_be_deleted_leaves_another_state_as_it_is(
    campus: Campus, state: CourseState
) -> None:
    campus.write(Course(id="alg", state=state))
    assert changes(campus.take_in(classes=[klass("alg", "tobedeleted")])) == []


def test_a_course_that_was_concluded_by_hand_stays_concluded(campus: Campus) -> None:
    campus.write(Course(id="alg", state=CourseState.CONCLUDED))
    plan = campus.take_in()
    assert campus.course("alg").state is CourseState.CONCLUDED
    assert notes(plan) == ["classes.csv:2: course:alg was not concluded by this roster; it stays concluded"]


def test_a_course_that_was_reopened_by_hand_stays_open(campus: Campus) -> None:
    campus.take_in()
    campus.take_in(classes=[klass("alg", "tobedeleted")])
    campus.write(Course(id="alg", state=CourseState.ACTIVE))
    plan = campus.take_in(classes=[klass("alg", "tobedeleted")])
    assert campus.course("alg").state is CourseState.ACTIVE
    assert notes(plan) == [
        "classes.csv:2: course:alg was made active by hand since the roster concluded it; it stays active"
    ]


def test_an_older_export_does_not_reopen_a_course(campus: Campus) -> None:
    campus.take_in(classes=[klass("alg", dateLastModified="2026-09-01")])
    campus.take_in(classes=[klass("alg", "tobedeleted", dateLastModified="2026-09-02")])
    campus.take_in(classes=[klass("alg", dateLastModified="2026-09-01")])
    assert campus.course("alg").state is CourseState.CONCLUDED


def test_a_class_at_fault_concludes_its_course_until_it_is_corrected(campus: Campus) -> None:
    rows = [enrolled("e1", "alg", "maya")]
    campus.take_in(rows)
    plan = campus.take_in([*rows, enrolled("e2", "alg", "omar")], classes=[klass("alg", "inactive")])
    assert (len(plan.faults), campus.course("alg").state) == (1, CourseState.CONCLUDED)
    assert notes(plan) == [
        f"enrollments.csv:{line}: is in class `alg`, which is at fault in classes.csv; skipped"
        for line in (2, 3)
    ]
    assert (campus.roles("maya"), campus.of("omar")) == ({"student in alg"}, [])
    campus.take_in()
    assert campus.course("alg").state is CourseState.ACTIVE


def test_a_class_that_is_absent_from_a_bulk_file_concludes_its_course(campus: Campus) -> None:
    campus.take_in(
        [enrolled("e1", "alg", "maya"), enrolled("e2", "bio", "omar")], classes=[klass("alg"), klass("bio")]
    )
    campus.write(Course(id="own", state=CourseState.ACTIVE))
    plan = campus.take_in(None, classes=[klass("bio")], modes={"classes": "bulk"})
    assert (campus.course("alg").state, campus.course("own").state) == (
        CourseState.CONCLUDED,
        CourseState.ACTIVE,
    )
    assert (plan.ended, plan.absent) == (1, 1)


def test_with_delete_classes_a_course_goes_with_everything_in_it(campus: Campus) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")])
    gone = [klass("alg", "tobedeleted")]
    plan = campus.take_in([enrolled("e1", "alg", "maya")], classes=gone, deletes_classes=True)
    assert changes(plan) == ["removed classes.csv:2: course:alg (with everything in it)"]
    assert CourseKey("alg") not in campus.held
    assert (plan.ended, campus.of("maya")) == (1, [])


def test_nothing_is_given_in_a_course_that_is_deleted(campus: Campus) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")], users=[user("maya", enabledUser="false")])
    gone = [klass("alg", "tobedeleted")]
    plan = campus.take_in([], classes=gone, users=[user("maya")], deletes_classes=True)
    assert changes(plan) == ["removed classes.csv:2: course:alg (with everything in it)"]


def test_an_enrollment_in_a_class_that_is_to_be_deleted_is_noted(campus: Campus) -> None:
    classes = [klass("alg"), klass("bio", "tobedeleted")]
    plan = campus.take_in([enrolled("e1", "alg", "maya"), enrolled("e2", "bio", "maya")], classes=classes)
    assert (faults(plan), campus.roles("maya")) == ([], {"student in alg"})
    assert notes(plan) == ["enrollments.csv:3: is in class `bio`, which is to be deleted; skipped"]


def test_the_terms_of_a_class_end_enrollments_that_state_no_end(campus: Campus) -> None:
    classes = [klass("alg", termSourcedIds="t1,t2")]
    terms = {"t1": "2026-06-30", "t2": "2026-12-20"}
    rows = [
        enrolled("e1", "alg", "maya"),
        enrolled("e2", "alg", "omar", end="2027-02-01"),
        enrolled("e3", "alg", "nora", begin="2027-01-01"),
    ]
    plan = campus.take_in(rows, classes=classes, terms=terms)
    assert (campus.only("maya").ends_at, campus.only("omar").ends_at) == (at("2026-12-20"), at("2027-02-01"))
    assert notes(plan) == [
        "enrollments.csv:4: never in effect: begins after the terms of its class end; skipped"
    ]
    assert campus.of("nora") == []


def test_the_end_of_a_term_outlives_exports_that_do_not_say_it(campus: Campus) -> None:
    classes, terms = [klass("alg", termSourcedIds="t1")], {"t1": "2026-12-20"}
    campus.take_in([enrolled("e1", "alg", "maya")], classes=classes, terms=terms)
    campus.take_in([changed("e1", "maya"), changed("e2", "omar")], classes=None, modes=DELTA)
    assert (campus.only("maya").ends_at, campus.only("omar").ends_at) == (at("2026-12-20"), at("2026-12-20"))
    modes = {"classes": "bulk", "academicSessions": "bulk"}
    campus.take_in(None, classes=classes, terms={"t1": "2027-01-31"}, modes=modes)
    assert campus.only("maya").ends_at == at("2027-01-31")
    campus.now = at("2027-02-01")
    campus.take_in(None, classes=classes, terms={"t1": "2027-06-30"}, modes=modes)
    assert campus.roles("maya") == set()
    campus.take_in([enrolled("e1", "alg", "maya")], classes=classes, terms={"t1": "2027-06-30"})
    assert campus.only("maya").ends_at == at("2027-06-30")
    campus.take_in(None, classes=[klass("alg")], modes={"classes": "bulk"})
    assert campus.only("maya").ends_at is None


# How much an import may end.


@pytest.mark.parametrize(
    ("members", "left", "modes", "few"),
    [
        (30, 27, ROSTER, True),
        (30, 26, ROSTER, False),
        (2, 1, ROSTER, False),
        (12, 2, None, True),
        (12, 1, None, False),
        (200, 180, None, True),
        (200, 179, None, False),
    ],
)
def test_an_import_that_would_end_many_memberships_is_refused(
    campus: Campus, members: int, left: int, modes: dict[str, str] | None, few: bool
) -> None:
    rows = [enrolled(f"e{n}", "alg", f"u{n}") for n in range(members)]
    campus.take_in(rows, modes=modes)
    gone = [] if modes else [row | {"status": "tobedeleted"} for row in rows[left:]]
    plan = campus.take_in(rows[:left] + gone, modes=modes)
    assert (plan.live, plan.ended) == (members, members - left)
    if few:
        plan.require_few_removals(0.1)
    else:
        with pytest.raises(
            FailedPreconditionError, match=f"would end {members - left} of {members} memberships"
        ):
            plan.require_few_removals(0.1)
    plan.require_few_removals(1)


def test_what_has_ended_already_does_not_widen_the_share(campus: Campus) -> None:
    past = [enrolled(f"p{n}", "alg", f"p{n}", end="2025-06-30") for n in range(100)]
    now = [enrolled(f"e{n}", "alg", f"u{n}") for n in range(5)]
    campus.take_in([*past, *now], modes=ROSTER)
    plan = campus.take_in(past, modes=ROSTER)
    assert (plan.live, plan.ended) == (5, 5)
    with pytest.raises(FailedPreconditionError):
        plan.require_few_removals(0.1)


def test_what_ends_access_comes_first(campus: Campus) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")])
    rows = [enrolled("e2", "bio", "omar"), enrolled("e1", "alg", "maya", status="tobedeleted")]
    plan = campus.take_in(rows, classes=[klass("alg", "tobedeleted"), klass("bio")])
    assert [change.action.value for change in plan.changes] == [
        "removed",
        "changed",
        "added",
        "added",
        "added",
    ]
