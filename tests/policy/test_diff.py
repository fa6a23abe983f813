"""A diff tells exactly what changes, and of edits that change nothing it tells nothing."""

from __future__ import annotations

import logging
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import assume, given

from authz.domain.errors import PolicyError
from authz.domain.facts import fact_names
from authz.domain.ids import ScopeKind
from authz.domain.policy_changes import CellChange, sentences
from authz.policy.compile import CompiledPolicy
from authz.policy.condition import parse_condition
from authz.policy.diff import diff
from authz.policy.load import POLICY_FILE, load_policy, policy_directory
from authz.policy.situations import situations_of
from tests.policies import POLICY, written
from tests.policy.test_prove import CELLS, CONSISTENT, ROLES, policies
from tests.properties import examples

logging.getLogger("casbin").setLevel(logging.CRITICAL)

TEXT = (policy_directory() / POLICY_FILE).read_text()


def edited(folder: Path, rows: str = "", *, replace: tuple[str, str] = ("", "")) -> CompiledPolicy:
    """The default policy with one text replaced and rows added."""
    assert replace[0] in TEXT
    return load_policy(written(folder, TEXT.replace(*replace) + rows if replace[0] else TEXT + rows))


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
def test_an_edit_that_changes_nothing_is_said_to_change_nothing(
    tmp_path: Path, rows: str, replace: tuple[str, str]
) -> None:
    found = diff(POLICY, edited(tmp_path, rows, replace=replace))
    assert not found, found


def test_two_rows_for_two_cases_are_the_row_for_both(tmp_path: Path) -> None:
    one = load_policy(written(tmp_path, TEXT + "p, student, *, notebook, read, !own, deny\n"))
    split = "".join(f"p, student, *, notebook, read, !own & {mark}published, deny\n" for mark in ("", "!"))
    assert not diff(one, load_policy(written(tmp_path, TEXT + split)))


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
            "",
            ("role, auditor, course, 15, no,", "role, auditor, course, 12, no,"),
            ["rank of role `auditor`: `15` becomes `12`"],
        ),
        (
            "",
            ("type, course, create|read", "type, course, browse|create|read"),
            [
                "actions of type `course`: `archive create delete edit_policy manage_members read"
                " read_members update` becomes `archive browse create delete edit_policy manage_members"
                " read read_members update`"
            ],
        ),
    ],
)
def test_a_change_is_told_by_role_action_and_condition(
    tmp_path: Path, rows: str, replace: tuple[str, str], told: list[str]
) -> None:
    found = diff(POLICY, edited(tmp_path, rows, replace=replace))
    lines = [*found.declarations, *(line for cell in found.cells for line in sentences(cell))]
    assert lines == told


def test_a_course_that_keeps_what_changes_everywhere_else_is_told(tmp_path: Path) -> None:
    override = "p, student, course:x, material, read, , allow\n"
    before = load_policy(written(tmp_path, TEXT + override))
    after = load_policy(written(tmp_path, TEXT + override + "p, student, *, material, read, own, allow\n"))
    found = diff(before, after)
    assert [line for cell in found.cells for line in sentences(cell)] == [
        "`student` gains read on material, when own & !published & !for_ai_response",
        "`student` keeps read on material in course x as it is",
    ]


@examples(40)
@given(texts=policies().flatmap(lambda text: policies().map(lambda other: (text, other))))
def test_a_diff_is_exact_for_every_role_and_every_fact(
    tmp_path_factory: pytest.TempPathFactory, texts: tuple[str, str]
) -> None:
    try:
        before, after = (load_policy(written(tmp_path_factory.mktemp("p"), text)) for text in texts)
    except PolicyError:  # a row that can never match
        assume(False)
    found = diff(before, after)
    told = {(cell.course_id, cell.role, cell.type, cell.action): cell for cell in found.cells}
    for cell in CELLS:
        for situation in situations_of(*cell):
            for course_id in (None, "a") if ScopeKind.COURSE in situation.kinds else (None,):
                for role in ROLES:
                    demands = situation.demands([before.vocabulary.roles[role]])
                    key = (course_id, role, *cell)
                    change = told.get(key, told.get((None, *key[1:])))
                    for facts in CONSISTENT if demands is not None else ():
                        if demands is not None and facts & demands.named == demands.required:
                            old, new = (
                                policy.rules_for(frozenset([role]), course_id, *cell).verdict(facts).allowed
                                for policy in (before, after)
                            )
                            expected = "gains" if new and not old else "losses" if old and not new else ""
                            assert says(change, facts) == expected, (key, fact_names(facts))
    if not found:
        for cell in CELLS:
            for held in combinations(ROLES, 2):
                for facts in CONSISTENT:
                    old, new = (
                        policy.rules_for(frozenset(held), "a", *cell).verdict(facts).allowed
                        for policy in (before, after)
                    )
                    assert old == new


def says(change: CellChange | None, facts: int) -> str:
    """What a change says about the facts, for who holds only its role."""
    for name in ("gains", "losses") if change is not None else ():
        if any(parse_condition(text).holds(facts) for text in getattr(change, name)):
            return name
    return ""
