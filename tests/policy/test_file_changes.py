"""Each part of a policy is named when it changes; comments and the order of tables are no part."""

from __future__ import annotations

import pytest

from authz.policy.diff import diff_files
from authz.policy.invariants import INVARIANTS_FILE
from authz.policy.load import POLICY_FILE, compile_files
from tests.policies import SHIPPED

TESTS = "tests/course.toml"
CASE = '"a student reads the course" ='
COMPILED = compile_files(SHIPPED)


def changes(after: dict[str, str]) -> list[str]:
    """What is said of the files in place of the shipped ones."""
    policy = COMPILED if after.get(POLICY_FILE) == SHIPPED[POLICY_FILE] else compile_files(after)
    found = diff_files(COMPILED, policy, SHIPPED, after)
    return [*found.declarations, *(cell.role for cell in found.cells)]


def replaced(file: str, old: str, new: str) -> dict[str, str]:
    """The shipped files with one text replaced."""
    assert SHIPPED[file].count(old) >= 1
    return SHIPPED | {file: SHIPPED[file].replace(old, new, 1)}


def without(file: str) -> dict[str, str]:
    """The shipped files but one."""
    return {name: text for name, text in SHIPPED.items() if name != file}


EDITS = {
    "an invariant that is renamed": (
        replaced(INVARIANTS_FILE, "[never.private-content]", "[never.other]"),
        [
            "invariant `private-content` is removed: only the owner",
            "invariant `other` is new: only the owner",
        ],
    ),
    "an invariant that is narrowed": (
        replaced(INVARIANTS_FILE, 'when = "!published"', 'when = "!published & locked"'),
        ['`when` of invariant `unpublished-materials`: `"!published"` becomes `"!published & locked"`'],
    ),
    "an invariant that loses a field": (
        replaced(INVARIANTS_FILE, 'rank_below = 30\nwhen = "!published"', 'when = "!published"'),
        ["`rank_below` of invariant `unpublished-materials`: `30` becomes nothing"],
    ),
    "a file of invariants that is gone": (
        without(INVARIANTS_FILE),
        ["invariant `private-content` is removed: only the owner"],
    ),
    "invariants that cannot be read": (
        SHIPPED | {INVARIANTS_FILE: "never = 3"},
        [f"file `{INVARIANTS_FILE}` is changed"],
    ),
    "tests that cannot be read": (SHIPPED | {TESTS: "= ="}, [f"file `{TESTS}` is changed"]),
    "a test that is renamed": (
        replaced(TESTS, CASE, '"another" ='),
        [f"{TESTS}: 1 test is removed: `a student reads the course`", f"{TESTS}: 1 test is new: `another`"],
    ),
    "a directory of tests": (
        replaced(TESTS, "[directory]", "[directory]\naccounts = []"),
        [f"{TESTS}: `directory` of its tests is changed"],
    ),
    "a file of tests that is gone": (without(TESTS), [f"{TESTS}: "]),
    "a file of another kind": (SHIPPED | {"README.md": "read me"}, ["file `README.md` is new"]),
    "an inherited role": (
        replaced(POLICY_FILE, "\ng, owner, teacher\n", "\n"),
        ["role `owner`: inherits nothing; before, `teacher`"],
    ),
    "a rank": (
        replaced(POLICY_FILE, "role, alumni, course, 10,", "role, alumni, course, 11,"),
        ["role `alumni`: rank `11`; before, `10`"],
    ),
    "a type": (
        replaced(POLICY_FILE, "type, course,", "type, quiz, read\ntype, course,"),
        ["type `quiz` is new"],
    ),
    "a lock": (
        replaced(POLICY_FILE, "lock, *, *, edit_policy\n", ""),
        ["`lock, *, *, edit_policy` is removed"],
    ),
    "a gate": (replaced(POLICY_FILE, "p, *, *, *, edit_policy, course_archived, deny\n", ""), ["owner"]),
}


@pytest.mark.parametrize(("after", "told"), EDITS.values(), ids=EDITS)
def test_each_part_that_changes_is_named(after: dict[str, str], told: list[str]) -> None:
    found = changes(after)
    for text in told:
        assert any(each.startswith(text) for each in found), found


def test_what_is_told_of_many_tests_is_short() -> None:
    (told,) = changes(without(TESTS))
    assert told.endswith(" more")


@pytest.mark.parametrize("file", SHIPPED)
def test_a_comment_changes_nothing(file: str) -> None:
    after = SHIPPED | {file: "# reviewed\n" + SHIPPED[file]}
    assert [each for each in changes(after) if not each.startswith("file `model.conf`")] == []


def test_the_line_endings_of_another_system_change_nothing() -> None:
    assert changes({name: text.replace("\n", "\r\n") for name, text in SHIPPED.items()}) == []
