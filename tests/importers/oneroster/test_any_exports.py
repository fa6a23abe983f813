"""Whatever exports come in, in whatever order: no access is left open, and nothing of others is touched."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.entities import Membership, MembershipKey, MembershipStatus
from authz.importers.oneroster.directory import is_live
from authz.importers.oneroster.source_ref import parse_source_ref
from tests.importers.exports import BULK, Campus, Row, at, by_hand, enrolled, klass, user
from tests.importers.oneroster.plans import WAYS_TO_SUSPEND
from tests.properties import examples

USERS, CLASSES = ("maya", "omar", "nora"), ("alg", "bio")
DATES = st.sampled_from(("", "2026-09-01", "2026-09-02", "2026-09-03"))
ROLES = {"student": "student", "aide": "teaching_assistant", "guardian": ""}

enrollment_rows = st.builds(
    lambda ref, class_ref, person, role, status, modified, end: enrolled(
        ref, class_ref, person, role, status=status, modified=modified, end=end
    ),
    st.sampled_from(("e1", "e2", "e3", "e4", "")),
    st.sampled_from((*CLASSES, "")),
    st.sampled_from((*USERS, "")),
    st.sampled_from(tuple(ROLES)),
    st.sampled_from(("active", "active", "active", "tobedeleted", "inactive")),
    DATES,
    st.sampled_from(("", "", "2026-12-20", "2026-09-15", "soon")),
)
class_rows = st.lists(
    st.builds(klass, st.sampled_from(CLASSES), st.sampled_from(("", "", "", "tobedeleted", "odd"))),
    max_size=3,
)
user_rows = st.lists(
    st.builds(
        lambda ref, status, enabled: user(ref, status, enabledUser=enabled),
        st.sampled_from(USERS),
        st.sampled_from(("", "", "tobedeleted")),
        st.sampled_from(("", "true", "false")),
    ),
    max_size=3,
)


class Export(msgspec.Struct):
    """What one import reads, and whom a person suspends by hand before it, and how."""

    enrollments: list[Row]
    classes: list[Row]
    users: list[Row] | None
    is_bulk: bool
    suspended: str
    how: dict[str, Any]


exports = st.builds(
    Export,
    st.lists(enrollment_rows, max_size=6),
    class_rows,
    st.none() | user_rows,
    st.booleans(),
    st.sampled_from(("", "", *USERS)),
    st.sampled_from(WAYS_TO_SUSPEND),
)


def of_roster(campus: Campus) -> list[Membership]:
    found = (each for each in campus.held.values() if isinstance(each, Membership))
    return [each for each in found if each.source == "oneroster" and each.subject.type == "user"]


def is_suspended_by_hand(membership: Membership) -> bool:
    ref = parse_source_ref(membership.source_ref)
    is_without_end = membership.status is MembershipStatus.SUSPENDED and not ref.is_suspended
    return is_without_end or membership.suspended_until is not None


def give_access(campus: Campus) -> set[MembershipKey]:
    return {
        each.key for each in of_roster(campus) if is_live(each, campus.now) and not campus.is_suspended(each)
    }


@given(st.lists(exports, min_size=1, max_size=4))
@examples(100)
def test_no_order_of_exports_leaves_access_open(history: list[Export]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        campus = Campus(Path(folder), by_hand("maya", role="auditor"), by_hand("omar", role="student"))
        for export in history:
            _take_in(campus, export)


def _take_in(campus: Campus, export: Export) -> None:
    for each in of_roster(campus):
        if each.subject.id == export.suspended:
            # As a person does it, who knows nothing of what the roster records.
            ref = parse_source_ref(each.source_ref).sourced_id
            campus.write(msgspec.structs.replace(each, source_ref=ref, **export.how))
    by_hand_before = {each.key for each in of_roster(campus) if is_suspended_by_hand(each)}
    before = give_access(campus)
    names = ("classes", "enrollments", *(() if export.users is None else ("users",)))
    plan = campus.take_in(
        export.enrollments,
        classes=export.classes,
        users=export.users,
        modes=dict.fromkeys(names, "bulk") if export.is_bulk else None,
    )
    after = give_access(campus)

    assert campus.held[by_hand("maya", role="auditor").key] == by_hand("maya", role="auditor")
    assert campus.held[by_hand("omar").key] == by_hand("omar")
    assert not by_hand_before & after
    suspended = {(each.subject, each.scope) for each in of_roster(campus) if is_suspended_by_hand(each)}
    assert {(key.subject, key.scope) for key in by_hand_before} <= suspended
    named = {
        (row["userSourcedId"], row["classSourcedId"], ROLES[row["role"]])
        for row in export.enrollments
        if row["status"] == "active" and row["endDate"] != "soon"
    }
    dated = {row["sourcedId"] for row in export.enrollments if row["dateLastModified"]}
    open_now = {
        (each.subject.id, each.scope.id, each.role)
        for each in of_roster(campus)
        # An older row leaves what a newer one said.
        if each.key in after and parse_source_ref(each.source_ref).sourced_id not in dated
    }
    opened = {(key.subject.id, key.scope.id, key.role) for key in after - before}
    lifted = {row["sourcedId"] for row in export.users or ()}
    assert {each for each in opened if each[0] not in lifted} <= named
    if export.is_bulk:
        assert open_now <= named
    _assert_closed(campus, export)
    out = {
        row["sourcedId"]
        for row in export.users or ()
        if "tobedeleted" in row.values() or "false" in row.values()
    }
    assert not out & {key.subject.id for key in after}
    assert plan.ended <= plan.live


def _assert_closed(campus: Campus, export: Export) -> None:
    """What rows without a date end has ended, by sourcedId, unless a row gives it."""
    live = [each for each in of_roster(campus) if is_live(each, campus.now)]
    for row in export.enrollments:
        others = [each for each in export.enrollments if each is not row]
        again = any(each["sourcedId"] == row["sourcedId"] for each in others)
        if not row["sourcedId"] or again or row["dateLastModified"]:
            continue
        is_over = row["status"] != "active" or row["endDate"] == "soon" or not ROLES[row["role"]]
        if is_over:
            assert row["sourcedId"] not in {parse_source_ref(each.source_ref).sourced_id for each in live}
        if is_over and row["status"] != "tobedeleted":
            given = {(o["userSourcedId"], o["classSourcedId"]) for o in others if o["status"] == "active"}
            spoken_of = (row["userSourcedId"], row["classSourcedId"])
            if spoken_of not in given:
                assert spoken_of not in {(each.subject.id, each.scope.id) for each in live}


MORE_DATES = st.sampled_from(("", "", "2026-09-01", "2026-09-02", "2026-09-03", "2027-01-01"))
STATUSES = st.sampled_from(("active", "active", "active", "", "tobedeleted", "odd"))


def row_of(person: str) -> st.SearchStrategy[Row]:
    """An enrollment of a person. Two of one person would be one membership, which records one sourcedId."""
    return st.builds(
        lambda ref, **fields: enrolled(ref, "alg", person, **fields),
        st.sampled_from((f"e-{person}", f"e-{person}", "")),
        status=STATUSES,
        modified=MORE_DATES,
        begin=st.sampled_from(("", "", "2026-08-01", "2027-02-01")),
        end=st.sampled_from(("", "", "2026-09-15", "2026-12-20", "2027-05-05")),
    )


def rows_of(row: Callable[..., Row], refs: tuple[str, ...], **fields: st.SearchStrategy[str]) -> Any:
    some = st.builds(row, st.sampled_from(refs), status=STATUSES, dateLastModified=MORE_DATES, **fields)
    return st.lists(some, max_size=3)


whole_exports = st.fixed_dictionaries(
    {
        "enrollments": st.tuples(*(st.none() | row_of(person) for person in USERS)).map(
            lambda rows: [row for row in rows if row is not None]
        ),
        "classes": rows_of(
            klass, ("alg",), termSourcedIds=st.sampled_from(("", "t1", "t1,t2", "unknown", "t1,unknown"))
        ),
        "users": st.none() | rows_of(user, USERS, enabledUser=st.sampled_from(("", "true", "false"))),
        "terms": st.none()
        | st.dictionaries(
            st.sampled_from(("t1", "t2")), st.sampled_from(("2026-09-30", "2026-12-31", "odd"))
        ),
        "modes": st.sampled_from((None, "bulk", "delta")),
    }
)


@given(st.lists(whole_exports, min_size=2, max_size=4))
@examples(300)
def test_a_repeated_import_changes_nothing_and_a_stated_end_is_the_end(history: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        campus = Campus(Path(folder))
        for export in history:
            names = (
                name for name in BULK if export["terms" if name == "academicSessions" else name] is not None
            )
            modes = None if export["modes"] is None else dict.fromkeys(names, export["modes"])
            before = {parse_source_ref(each.source_ref).sourced_id: each for each in _live(campus)}
            plan = campus.take_in(**{**export, "modes": modes})  # which imports again
            spoken_of = {each.line for each in (*plan.faults, *plan.notes) if each.file == "enrollments.csv"}
            for line, row in enumerate(export["enrollments"], 2):
                held = before.get(row["sourcedId"]) if row["sourcedId"] else None
                if held is not None and line not in spoken_of and _gives(row, held.key) and row["endDate"]:
                    after = campus.held[held.key]
                    assert isinstance(after, Membership)
                    assert after.ends_at == at(row["endDate"])


def _live(campus: Campus) -> list[Membership]:
    return [each for each in of_roster(campus) if is_live(each, campus.now)]


def _gives(row: Row, key: MembershipKey) -> bool:
    names = (row["userSourcedId"], row["classSourcedId"], ROLES[row["role"]])
    return row["status"] == "active" and names == (key.subject.id, key.scope.id, key.role)
