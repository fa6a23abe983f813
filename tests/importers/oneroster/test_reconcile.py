"""What an export changes in a directory: what ends access ends it, and what a person gave stays."""

from __future__ import annotations

import pytest

from authz.domain.entities import Course, CourseState
from authz.domain.errors import FailedPreconditionError
from authz.domain.mutations import Operation
from tests.importers.exports import BULK, NOW, Campus, Row, at, enrolled, klass
from tests.importers.oneroster.plans import DELTA, ROSTER, changed, changes, notes

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


def test_an_import_that_may_end_none_is_refused_for_one(campus: Campus) -> None:
    rows = [enrolled(f"e{n}", "alg", f"u{n}") for n in range(100)]
    campus.take_in(rows)
    plan = campus.take_in([row | {"status": "tobedeleted"} for row in rows[:1]])
    plan.require_few_removals(0.01)
    with pytest.raises(FailedPreconditionError, match="would end 1 of 100 memberships"):
        plan.require_few_removals(0)
    campus.take_in(rows).require_few_removals(0)


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
