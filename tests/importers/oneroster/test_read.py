"""What a OneRoster export says: what becomes of each row, and what is refused."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from authz.domain.errors import InvalidArgumentError
from authz.importers.oneroster.read import read_oneroster
from authz.importers.oneroster.rows import DEFAULT_ROLES, ReadOptions, Roster, RowState
from tests.importers.exports import BULK, Row, at, enrolled, export, klass, user

ACTIVE, ENDED, FAULTY = RowState.ACTIVE, RowState.ENDED, RowState.FAULTY


def read(folder: Path, *rows: Row, **others: str) -> Roster:
    return read_oneroster(export(folder, rows), ReadOptions(roles={**DEFAULT_ROLES, **others}))


def faults(roster: Roster) -> list[str]:
    return [str(fault) for fault in roster.faults]


def notes(roster: Roster) -> list[str]:
    return [str(note) for note in roster.notes if note.file != "manifest.csv"]


def test_roles_dates_and_primary_teachers(tmp_path: Path) -> None:
    roster = read(
        tmp_path,
        enrolled("e1", "alg", "t1", "teacher", primary="true"),
        enrolled("e2", "alg", "t2", "teacher", primary="false"),
        enrolled("e3", "alg", "u1", begin="2026-09-01", end="2026-12-20"),
        enrolled("e4", "alg", "a1", "aide"),
    )
    found = {row.ref: row for row in roster.enrollments}
    assert [row.role for row in found.values()] == ["owner", "teacher", "student", "teaching_assistant"]
    assert (found["e3"].starts_at, found["e3"].ends_at) == (at("2026-09-01"), at("2026-12-20"))
    assert str(found["e3"].key) == "membership user:u1 student in course:alg"


@pytest.mark.parametrize("primary", ["1", "yes", "TRUE", " true "])
def test_primary_is_read_as_a_school_means_it(tmp_path: Path, primary: str) -> None:
    (row,) = read(tmp_path, enrolled("e1", "alg", "maya", "teacher", primary=primary)).enrollments
    assert row.role == "owner"


def test_a_primary_that_nobody_understands_is_a_fault(tmp_path: Path) -> None:
    roster = read(tmp_path, enrolled("e1", "alg", "maya", "teacher", primary="main"))
    assert faults(roster) == ["enrollments.csv:2: primary `main` is neither `true` nor `false`"]


def test_only_a_primary_teacher_becomes_an_owner(tmp_path: Path) -> None:
    roster = read(
        tmp_path,
        enrolled("e1", "alg", "omar", "proctor", primary="true"),
        enrolled("e2", "alg", "maya", "student", primary="true"),
        enrolled("e3", "alg", "nadia", "teacher", primary="true"),
        proctor="teacher",
    )
    assert [row.role for row in roster.enrollments] == ["teacher", "student", "owner"]


def test_a_role_is_matched_without_case_and_blanks_and_noted_once(tmp_path: Path) -> None:
    rows = [
        enrolled(f"e{n}", "alg", f"u{n}", role) for n, role in enumerate(("Teacher", "Teacher", "student "))
    ]
    roster = read(tmp_path, *rows)
    assert [row.role for row in roster.enrollments] == ["teacher", "teacher", "student"]
    assert notes(roster) == [
        "enrollments.csv:2: role `Teacher` is read as `teacher`, here and below",
        "enrollments.csv:4: role `student␠` is read as `student`, here and below",
    ]


@pytest.mark.parametrize(
    ("role", "complaint"),
    [
        ("proctor", "role `proctor` is not mapped; map it with `--role-map proctor=…`"),
        ("Head of year", "role `Head of year` is not mapped; map it with `--role-map 'head of year'=…`"),
        ("", "role is empty; correct it in the source"),
        ("\x07", "role `\\x07` has characters that cannot be printed; correct it in the source"),
    ],
)
def test_a_role_that_is_not_mapped_comes_with_advice_that_works(
    tmp_path: Path, role: str, complaint: str
) -> None:
    assert faults(read(tmp_path, enrolled("e1", "alg", "maya", role))) == [f"enrollments.csv:2: {complaint}"]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (
            enrolled("e1", "alg", "maya", status="inactive"),
            "status `inactive` is neither `active` nor `tobedeleted`",
        ),
        (enrolled("e1", "alg", "maya", end="06/30/2020"), "endDate `06/30/2020` is not a date"),
        (enrolled("e1", "alg", "maya", begin="\x1b[2J"), "beginDate `\\x1b[2J` is not a date"),
        (enrolled("e1", "alg", "m aya"), "userSourcedId `m aya` has the character ` `"),
        (enrolled("e1", "", "maya"), "classSourcedId is empty"),
        (enrolled("", "alg", "", status="tobedeleted"), "userSourcedId is empty"),
    ],
)
def test_a_row_that_cannot_be_read_is_a_fault(tmp_path: Path, row: Row, complaint: str) -> None:
    roster = read(tmp_path, row, enrolled("e2", "alg", "omar"))
    (fault,) = faults(roster)
    assert fault.startswith(f"enrollments.csv:2: {complaint}")
    assert [row.state for row in roster.enrollments] == [FAULTY, ACTIVE]


@pytest.mark.parametrize(
    "row",
    [
        enrolled("e1", "alg", "maya", status="ToBeDeleted "),
        enrolled("e1", "", "", "", status="tobedeleted"),
        enrolled("e1", "alg", "maya", "guardian", status="tobedeleted", end="soon"),
        enrolled("", "alg", "maya", status="tobedeleted"),
    ],
)
def test_a_deletion_needs_no_more_than_the_enrollment_or_the_membership(tmp_path: Path, row: Row) -> None:
    roster = read(tmp_path, row)
    assert [(row.state, faults(roster)) for row in roster.enrollments] == [(ENDED, [])]


def test_an_enrollment_that_ends_when_it_begins_is_never_in_effect(tmp_path: Path) -> None:
    roster = read(tmp_path, enrolled("e1", "alg", "maya", begin="2026-01-01", end="2026-01-01"))
    assert [row.state for row in roster.enrollments] == [ENDED]
    assert notes(roster) == [
        "enrollments.csv:2: never in effect: ends on 2026-01-01, begins on 2026-01-01; skipped"
    ]


def test_dates_without_a_zone_are_in_the_one_that_is_given(tmp_path: Path) -> None:
    zone = ZoneInfo("America/New_York")
    export(tmp_path, [enrolled("e1", "alg", "maya", begin="2026-07-01", end="2026-12-01T08:00:00Z")])
    (row,) = read_oneroster(tmp_path, ReadOptions(zone=zone)).enrollments
    assert (row.starts_at, row.ends_at) == (at("2026-07-01T04:00:00Z"), at("2026-12-01T08:00:00Z"))


def test_an_empty_row_is_noted_as_such(tmp_path: Path) -> None:
    export(tmp_path, [{}, enrolled("e1", "alg", "maya")], classes=[klass("alg"), {}])
    roster = read_oneroster(tmp_path)
    assert (len(roster.enrollments), faults(roster)) == (1, [])
    assert notes(roster) == [
        "classes.csv:3: is an empty row; skipped",
        "enrollments.csv:2: is an empty row; skipped",
    ]


@pytest.mark.parametrize(
    ("first", "second", "state", "line"),
    [
        (klass("alg", "tobedeleted"), klass("alg"), ACTIVE, 3),
        (klass("alg"), klass("alg", "tobedeleted"), ACTIVE, 2),
        (
            klass("alg", dateLastModified="2026-01-01"),
            klass("alg", "tobedeleted", dateLastModified="2026-01-02"),
            ENDED,
            3,
        ),
        (
            klass("alg", dateLastModified="2026-01-02"),
            klass("alg", "tobedeleted", dateLastModified="2026-01-01"),
            ACTIVE,
            2,
        ),
    ],
)
def test_a_class_that_is_listed_twice_is_resolved(
    tmp_path: Path, first: Row, second: Row, state: RowState, line: int
) -> None:
    roster = read_oneroster(export(tmp_path, classes=[first, second]))
    assert (roster.classes["alg"].state, roster.classes["alg"].line) == (state, line)
    assert notes(roster) == [
        f"classes.csv:{5 - line}: class `alg` is also on line {line}, which counts; skipped"
    ]


@pytest.mark.parametrize(
    ("row", "state", "faulty"),
    [
        (user("maya", "tobedeleted", enabledUser="true"), ENDED, False),
        (user("maya", enabledUser="false"), ENDED, False),
        (user("maya", enabledUser="0"), ENDED, False),
        (user("maya", "inactive"), FAULTY, True),
        (user("maya", enabledUser="perhaps"), FAULTY, True),
        (user("maya", enabledUser="1"), ACTIVE, False),
        (user("maya"), ACTIVE, False),
    ],
)
def test_users_who_are_deleted_or_disabled(tmp_path: Path, row: Row, state: RowState, faulty: bool) -> None:
    roster = read_oneroster(export(tmp_path, users=[row]))
    assert [each.state for each in roster.users.values()] == [state]
    assert bool(roster.faults) is faulty


def test_no_password_reaches_a_message(tmp_path: Path) -> None:
    roster = read_oneroster(export(tmp_path, users=[user("m aya", "hunter", password="swordfish")]))
    assert faults(roster)
    assert "swordfish" not in repr(roster)


def test_a_delta_must_say_of_each_record_whether_and_when_it_changed(tmp_path: Path) -> None:
    rows = [enrolled("e1", "alg", "maya"), enrolled("e2", "alg", "omar", status="active", modified="9/1/26")]
    roster = read_oneroster(export(tmp_path, rows, modes=BULK | {"enrollments": "delta"}, users=[], terms={}))
    assert faults(roster) == [
        "enrollments.csv:2: status `` is neither `active` nor `tobedeleted`; use one of them",
        "enrollments.csv:3: dateLastModified `9/1/26` is not a date; write it like `2026-09-01`",
    ]


def test_a_delta_without_its_columns_is_refused(tmp_path: Path) -> None:
    export(tmp_path, classes=None, modes={"enrollments": "delta"})
    (tmp_path / "enrollments.csv").write_text("sourcedId,classSourcedId,userSourcedId,role\n")
    with pytest.raises(
        InvalidArgumentError, match=r"enrollments\.csv:1: has no column `status`; its columns"
    ):
        read_oneroster(tmp_path)


def test_elsewhere_a_date_of_modification_that_cannot_be_read_is_noted(tmp_path: Path) -> None:
    roster = read(tmp_path, enrolled("e1", "alg", "maya", modified="9/1/26"))
    assert [row.state for row in roster.enrollments] == [ACTIVE]
    assert notes(roster) == [
        "enrollments.csv:2: dateLastModified `9/1/26` is not a date; write it like `2026-09-01`; ignored"
    ]


def test_the_end_of_a_class_is_the_latest_of_its_terms(tmp_path: Path) -> None:
    classes = [klass("alg", termSourcedIds="t1,t2"), klass("bio", termSourcedIds="t3"), klass("art")]
    export(tmp_path, classes=classes, terms={"t1": "2026-06-30", "t2": "2026-12-20"})
    roster = read_oneroster(tmp_path)
    assert {row.id: (row.has_terms, row.ends_at) for row in roster.classes.values()} == {
        "alg": (True, at("2026-12-20")),
        "bio": (False, None),
        "art": (True, None),
    }
    assert notes(roster) == ["classes.csv:3: term `t3` is not in academicSessions.csv: its end is not known"]


def test_a_term_that_is_deleted_or_at_fault_opens_nothing(tmp_path: Path) -> None:
    named = {"alg": "gone", "bio": "gone,t1", "art": "odd", "geo": "soon"}
    export(tmp_path, classes=[klass(ref, termSourcedIds=terms) for ref, terms in named.items()])
    (tmp_path / "academicSessions.csv").write_text(
        "sourcedId,status,endDate\n"
        "gone,tobedeleted,2027-01-01\nt1,active,2026-06-30\nodd,inactive,2026-07-31\nsoon,active,soon\n"
    )
    roster = read_oneroster(tmp_path)
    assert {row.id: (row.has_terms, row.ends_at) for row in roster.classes.values()} == {
        "alg": (False, None),
        "bio": (True, at("2026-06-30")),
        "art": (True, at("2026-07-31")),
        "geo": (False, None),
    }
    assert [(fault.file, fault.line) for fault in roster.faults] == [
        ("academicSessions.csv", 4),
        ("academicSessions.csv", 5),
    ]


def test_reading_twice_gives_the_same(tmp_path: Path) -> None:
    export(tmp_path, [enrolled("e1", "alg", "maya"), enrolled("e2", "alg", "omar", end="2026-06-30")])
    assert read_oneroster(tmp_path).enrollments == read_oneroster(tmp_path).enrollments
