"""A draft with faults: an edit names each row that is at fault, so that an edit can remove it."""

from __future__ import annotations

import re

import pytest

from authz.domain.drafts import AddRow, DeleteFile, PutFile, RemoveRow, SetCell
from authz.domain.errors import PolicyError
from authz.policy.edit import Course, edit_files, with_lines
from authz.policy.load import POLICY_FILE, compile_files
from tests.policies import SHIPPED

CELL = SetCell("teaching_assistant", "material", "publish", ("",))
ALGEBRA = Course("algebra", compile_files(SHIPPED))
FAULTY = {
    "an unknown role": "p, grader, *, material, read, , allow",
    "a short row": "p, student, *, material, read, allow",
    "an unknown kind": "P, student, *, material, read, , allow",
    "a bracket": "p, student, *, material, read, (own), allow",
    "a declaration": "role, grader, course, many, no,",
    "a link": "g, student, nobody",
    "a lock": "lock, nobody, material, read",
}
OF_COURSE = {
    "an unknown role": "p, grader, course:algebra, material, read, , allow",
    "another scope": "p, student, *, material, read, , allow",
    "what is locked": "p, student, course:algebra, course, edit_policy, , allow",
}
CASES = [*((None, row) for row in FAULTY.values()), *((ALGEBRA, row) for row in OF_COURSE.values())]


@pytest.mark.parametrize(
    ("course", "row"), CASES, ids=[*FAULTY, *(f"{each} in a course" for each in OF_COURSE)]
)
def test_the_row_that_an_edit_names_is_the_row_that_an_edit_removes(course: Course | None, row: str) -> None:
    before = SHIPPED if course is None else {"course.csv": ""}
    draft = edit_files(before, [AddRow(row)], course)
    with pytest.raises(PolicyError) as caught:
        edit_files(draft, [CELL], course)
    named = {
        found[1] for each in caught.value.faults if (found := re.search("the row is `([^`]*)`", each.text))
    }
    assert named == {row}
    assert all(each.text.endswith("which `--remove` removes") for each in caught.value.faults)
    mended = edit_files(draft, [RemoveRow(row), CELL], course)
    assert mended == edit_files(before, [CELL], course)


def test_of_a_row_that_is_there_twice_an_edit_keeps_one() -> None:
    row = "p, student, *, material, read, published, allow"
    twice = SHIPPED | {POLICY_FILE: f"{SHIPPED[POLICY_FILE]}{row}\n"}
    with pytest.raises(
        PolicyError, match=f"the row is `{re.escape(row)}`, which `--remove` removes wherever"
    ):
        edit_files(twice, [CELL])
    once = edit_files(twice, [RemoveRow(row), AddRow(row), CELL])[POLICY_FILE]
    assert once.count(row) == 1
    assert row in edit_files(SHIPPED, [CELL])[POLICY_FILE]


def test_a_fault_of_no_row_names_none() -> None:
    """What stands at the beginning of the file is not at fault for the whole of it."""
    for edit in (PutFile("mine.csv", "p, a\n"), DeleteFile("model.conf"), PutFile(POLICY_FILE, "# none\n")):
        with pytest.raises(PolicyError) as caught:
            edit_files(SHIPPED, [edit, CELL])
        assert "the row is" not in str(caught.value)


def test_a_row_that_is_too_long_to_be_quoted_is_not() -> None:
    row = f"p, {'x' * 1000}, *, material, read, , allow"
    draft = edit_files(SHIPPED, [AddRow(row)])
    with pytest.raises(PolicyError) as caught:
        edit_files(draft, [CELL])
    assert "the row is" not in str(caught.value)
    assert with_lines(caught.value.faults, draft) == caught.value.faults
