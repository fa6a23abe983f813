"""A diff tells exactly what changes, and of edits that change nothing it tells nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import combinations

import pytest
from hypothesis import given

from authz.domain.errors import PolicyError
from authz.domain.facts import fact_names
from authz.domain.ids import ScopeKind
from authz.domain.policy_changes import CellChange, sentences
from authz.policy.compile import CompiledPolicy
from authz.policy.condition import parse_condition
from authz.policy.course import COURSE_FILE, load_course_policy
from authz.policy.diff import diff
from authz.policy.load import POLICY_FILE, policy_directory
from authz.policy.situations import situations_of
from tests.policies import POLICY, compiled
from tests.policy.test_prove import CELLS, CONSISTENT, ROLES, policies
from tests.properties import examples

logging.getLogger("casbin").setLevel(logging.CRITICAL)

TEXT = (policy_directory() / POLICY_FILE).read_text()


def edited(rows: str = "", *, replace: tuple[str, str] = ("", "")) -> CompiledPolicy:
    """The default policy with one text replaced and rows added."""
    assert replace[0] in TEXT
    return compiled(TEXT.replace(*replace) + rows if replace[0] else TEXT + rows)


PUBLISHED = "p, student, *, material, read, published, allow\n"


@pytest.mark.parametrize(
    ("rows", "replace"),
    [
        ("# reviewed\n\n", ("", "")),
        (PUBLISHED, (PUBLISHED, "")),
        ("p, student, *, material, read, published & own, allow\n", ("", "")),
        ("p, student, course:x, material, read, published & locked, allow\n", ("", "")),
        ("p, *, *, *, update, locked & !own, deny\n", ("", "")),
        ("p, *, *, course, read, for_ai_response, deny\n", ("", "")),
        ("p, student, *, material, read, published & own, allow\n"
         "p, student, *, material, read, published & locked, allow\n", ("", "")),
    ],
)  # fmt: skip
def test_an_edit_that_changes_nothing_is_said_to_change_nothing(rows: str, replace: tuple[str, str]) -> None:
    found = diff(POLICY, edited(rows, replace=replace))
    assert not found, found


def test_a_deny_of_the_platform_is_told_where_only_a_course_allows_what_it_stops() -> None:
    """Who holds both roles is no longer stopped there, and nobody was elsewhere."""
    without = "\n".join(
        [
            "role, owner, course, 3, no,",
            "role, student, course, 1, no,",
            "type, notebook, read|export",
            "p, student, *, notebook, read, , allow",
            "p, owner, course:x, notebook, export, , allow\n",
        ]
    )
    stopped = compiled(without + "p, student, *, notebook, export, , deny\n")
    for before, after, does in (
        (stopped, compiled(without), "no longer denies"),
        (compiled(without), stopped, "now also denies"),
    ):
        (cell,) = diff(before, after).cells
        assert list(sentences(cell)) == [
            f"`student` {does} to holders of other roles: export on notebook in course x, always"
        ]


def test_two_rows_for_two_cases_are_the_row_for_both() -> None:
    one = compiled(TEXT + "p, student, *, notebook, read, !own, deny\n")
    split = "".join(f"p, student, *, notebook, read, !own & {mark}published, deny\n" for mark in ("", "!"))
    assert not diff(one, compiled(TEXT + split))


@pytest.mark.parametrize(
    ("rows", "replace", "told"),
    [
        (
            "p, student, *, material, read, , allow\n",
            ("", ""),
            ["`student` gains read on material, when !published & !for_ai_response"],
        ),
        (
            "",
            (PUBLISHED, ""),
            ["`student` loses read on material, when published & !for_ai_response"],
        ),
        (
            "p, teaching_assistant, course:x, material, publish, , allow\n",
            ("", ""),
            [
                "`teaching_assistant` gains publish on material in course x,"
                " when !for_ai_response & !course_archived"
            ],
        ),
        (
            "p, auditor, *, notebook, delete, , deny\n",
            ("", ""),
            [
                "`auditor` now also denies to holders of other roles: delete on notebook,"
                " when own & !locked & !for_ai_response & !course_archived"
            ],
        ),
        (
            "role, helper, platform, 5, no,\ng, helper, watched\n",
            ("role, watcher,", "role, watched, platform, 5, no,\nrole, watcher,"),
            ["role `watched` is new", "role `helper` is new", "role `helper`: inherits `watched`"],
        ),
        (
            "role, tutor, course, 5, no,\np, tutor, *, material, read, , allow\n"
            "p, tutor, *, material, delete, , deny\n",
            ("", ""),
            [
                "role `tutor` is new",
                "`tutor` gains read on material, when !for_ai_response",
                "`tutor` now also denies to holders of other roles: delete on material,"
                " when !locked & !for_ai_response & !course_archived",
            ],
        ),
        (
            "type, quiz, read\np, student, *, quiz, read, , allow\n",
            ("", ""),
            ["type `quiz` is new", "`student` gains read on quiz, when !for_ai_response"],
        ),
        (
            "",
            ("role, auditor, course, 15, no,", "role, auditor, course, 12, no,"),
            ["role `auditor`: rank `12`; before, `15`"],
        ),
        (
            "",
            ("role, student, course, 20, no, alumni", "role, student, course, 20, yes,"),
            [
                "role `student`: works in drafts yes; before, no",
                "role `student`: becomes nothing; before, `alumni`",
            ],
        ),
        (
            "",
            (
                "type, message, create|read|update|delete|moderate",
                "type, message, moderate|browse|read|create|update|delete",
            ),
            ["type `message` has the new action `browse`"],
        ),
    ],
)
def test_a_change_is_told_by_role_action_and_condition(
    rows: str, replace: tuple[str, str], told: list[str]
) -> None:
    found = diff(POLICY, edited(rows, replace=replace))
    lines = [*found.declarations, *(line for cell in found.cells for line in sentences(cell))]
    assert lines == told


def test_what_is_lost_with_a_role_or_a_type_is_told() -> None:
    rows = "role, tutor, course, 5, no,\np, tutor, *, material, read, , allow\n"
    rows += "type, quiz, read\np, student, *, quiz, read, , allow\n"
    found = diff(edited(rows), POLICY)
    assert [*found.declarations] == ["role `tutor` is removed", "type `quiz` is removed"]
    assert [line for cell in found.cells for line in sentences(cell)] == [
        "`tutor` loses read on material, when !for_ai_response",
        "`student` loses read on quiz, when !for_ai_response",
    ]


@pytest.mark.parametrize("effect", ["allow", "deny"])
def test_a_row_for_a_role_that_nobody_can_have_there_changes_nothing(effect: str) -> None:
    """A role in a session gives nothing in its course, and a course is created on the platform."""
    rows = f"p, host, *, *, read, , {effect}\np, student, *, *, create, , {effect}\n"
    cells = diff(POLICY, edited(rows)).cells
    assert {cell.role for cell in cells} >= {"host", "student"}
    assert not [cell for cell in cells if cell.type == "course"]


def test_an_action_that_a_type_no_longer_has_is_told() -> None:
    wider = edited(replace=("type, course, create|read", "type, course, browse|create|read"))
    assert [*diff(wider, POLICY).declarations] == ["type `course` has no action `browse` any more"]


def test_a_course_that_keeps_what_changes_everywhere_else_is_told() -> None:
    override = "p, student, course:x, material, read, , allow\n"
    before = compiled(TEXT + override)
    after = compiled(TEXT + override + "p, student, *, material, read, own, allow\n")
    found = diff(before, after)
    assert [line for cell in found.cells for line in sentences(cell)] == [
        "`student` gains read on material, when own & !published & !for_ai_response",
        "`student` keeps read on material in course x as it is",
    ]


def test_a_change_that_a_course_with_rows_of_its_own_shares_is_told_once() -> None:
    override = "p, student, course:x, material, read, published & own, allow\n"
    given = "p, student, *, material, read, own, allow\n"
    (cell,) = diff(compiled(TEXT + override), compiled(TEXT + override + given)).cells
    assert (cell.course_id, cell.gains) == (None, ("own & !published & !for_ai_response",))


def loaded(text: str) -> tuple[str, CompiledPolicy | None]:
    """A policy with its text; None for one with a row that can never match."""
    try:
        return text, compiled(text)
    except PolicyError:
        return text, None


# Each by itself: of two at once, most would be thrown away.
sound = policies().map(loaded).filter(lambda each: each[1] is not None)


@examples(40)
@given(old_policy=sound, new_policy=sound)
def test_a_diff_is_exact_for_every_role_and_every_fact(
    old_policy: tuple[str, CompiledPolicy], new_policy: tuple[str, CompiledPolicy]
) -> None:
    (_, before), (_, after) = old_policy, new_policy
    found = diff(before, after)
    told = {(cell.course_id, cell.role, cell.type, cell.action): cell for cell in found.cells}
    for cell, course_id, role, facts in situated(before, 1):
        key = (course_id, role[0], *cell)
        change = told.get(key, told.get((None, *key[1:])))
        old, new = (allows(policy, role, course_id, cell, facts) for policy in (before, after))
        expected = "gains" if new and not old else "losses" if old and not new else ""
        assert says(change, facts) == expected, (key, fact_names(facts))
    for cell, course_id, held, facts in situated(before, 2) if not found else ():
        assert allows(before, held, course_id, cell, facts) == allows(after, held, course_id, cell, facts)


def situated(
    policy: CompiledPolicy, count: int
) -> Iterator[tuple[tuple[str, str], str | None, tuple[str, ...], int]]:
    """Whatever can be so for who holds so many roles: what of which course is asked, the roles, the facts."""
    for cell in CELLS:
        for situation in situations_of(*cell):
            for held in combinations(ROLES, count):
                demands = situation.demands([policy.vocabulary.roles[role] for role in held])
                for course_id in (None, "a") if ScopeKind.COURSE in situation.kinds else (None,):
                    for facts in CONSISTENT if demands is not None else ():
                        if demands is not None and facts & demands.named == demands.required:
                            yield cell, course_id, held, facts


def allows(
    policy: CompiledPolicy, held: tuple[str, ...], course_id: str | None, cell: tuple[str, str], facts: int
) -> bool:
    return policy.rules_for(frozenset(held), course_id, *cell).verdict(facts).allowed


def says(change: CellChange | None, facts: int) -> str:
    """What a change says about the facts, for who holds only its role."""
    for name in ("gains", "losses") if change is not None else ():
        if any(parse_condition(text).holds(facts) for text in getattr(change, name)):
            return name
    return ""


def test_a_comparison_ends_when_its_call_does() -> None:
    left = iter(range(100))
    with pytest.raises(StopIteration):
        diff(POLICY, edited("# reviewed\n"), lambda: next(left))


def test_two_policies_of_a_course_are_compared_only_where_the_course_has_rows() -> None:
    row = "p, student, course:a, notebook, read, {}, deny"
    before, after = (
        load_course_policy(POLICY, "a", {COURSE_FILE: row.format(when)}) for when in ("!own", "!attending")
    )
    compared: list[None] = []
    found = diff(before, after, lambda: compared.append(None))
    assert {(each.role, each.course_id) for each in found.cells} == {("student", "a")}
    assert len(compared) == len(after.overrides["a"].denies)
