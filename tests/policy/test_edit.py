"""Edits of a policy by cell and by row: what they change, what they leave alone, and what they refuse."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.drafts import AddRow, DeleteFile, Edit, PutFile, RemoveRow, SetCell
from authz.domain.errors import FailedPreconditionError, InvalidArgumentError, PolicyError
from authz.policy.condition import parse_condition
from authz.policy.diff import diff
from authz.policy.edit import edit_files, rebase_files
from authz.policy.load import POLICY_FILE, compile_files
from authz.policy.situations import closure
from tests.policies import SHIPPED
from tests.properties import examples
from tests.steps import count_steps

POLICY = compile_files(SHIPPED)
CELLS = [
    (role, declared.name, action)
    for role in POLICY.vocabulary.roles
    for declared in POLICY.vocabulary.types.values()
    for action in declared.actions
]
FACTS = ("own", "shared_view", "published", "course_visible", "within_edit_window", "attending")


def rows_changed(edited: dict[str, str]) -> tuple[list[str], list[str]]:
    """The lines that are new, and those that are gone."""
    before, after = (files[POLICY_FILE].splitlines() for files in (SHIPPED, edited))
    return [line for line in after if line not in before], [line for line in before if line not in after]


def edited(*edits: Edit) -> dict[str, str]:
    return edit_files(SHIPPED, edits)


@pytest.mark.parametrize(
    ("cell", "new", "gone"),
    [
        (
            SetCell("student", "material", "read", ("",)),
            ["p, student, *, material, read, , allow"],
            ["p, student, *, material, read, published, allow"],
        ),
        (
            SetCell("teaching_assistant", "material", "publish", ("",)),
            ["p, teaching_assistant, *, material, publish, , allow"],
            [],
        ),
        (SetCell("student", "notebook", "delete", ()), [], ["p, student, *, notebook, delete, own, allow"]),
        (
            SetCell("auditor", "notebook", "read", ("own & course_visible", "own", "course_visible")),
            ["p, auditor, *, notebook, read, own, allow"],
            [],
        ),
        (SetCell("student", "material", "read", ("published",)), [], []),
        (SetCell("owner", "material", "publish", ("",)), [], []),
    ],
    ids=["always", "new", "never", "minimal", "as it is", "inherited"],
)
def test_a_cell_edit_changes_as_few_rows_as_it_can(cell: SetCell, new: list[str], gone: list[str]) -> None:
    assert rows_changed(edited(cell)) == (new, gone)


def test_other_rows_comments_and_order_stay_and_a_new_row_is_beside_its_like() -> None:
    after = edited(SetCell("teaching_assistant", "material", "publish", ("",)))[POLICY_FILE].splitlines()
    place = after.index("p, teaching_assistant, *, material, publish, , allow")
    assert after[place - 1] == "p, teacher, *, material, publish, , allow"
    assert after[:place] + after[place + 1 :] == SHIPPED[POLICY_FILE].splitlines()


def test_a_deny_of_the_cell_itself_goes_when_the_cell_is_to_be_allowed() -> None:
    row = "p, student, *, material, read, , deny"
    denied = edited(AddRow(row))
    after = edit_files(denied, [SetCell("student", "material", "read", ("published",))])
    assert after == SHIPPED


@pytest.mark.parametrize(
    ("rows", "cell", "says"),
    [
        ((), SetCell("owner", "material", "read", ()), "`owner` inherits it"),
        (
            ("p, student, *, material, *, , allow",),
            SetCell("student", "material", "read", ("published",)),
            "is for more than this cell; change that row, or add `p, student, *, material, read, , deny`",
        ),
        (
            ("p, student, *, material, *, , deny",),
            SetCell("student", "material", "read", ("published",)),
            "denies read on material to `student`",
        ),
    ],
    ids=["inherited", "wildcard", "denied by a wildcard"],
)
def test_what_rows_of_the_cell_cannot_express_is_refused_with_the_row(
    rows: tuple[str, ...], cell: SetCell, says: str
) -> None:
    with pytest.raises(FailedPreconditionError, match=r"default\.csv:\d+") as caught:
        edited(*map(AddRow, rows), cell)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (SetCell("studnt", "material", "read", ()), "did you mean `student`?"),
        (SetCell("student", "materal", "read", ()), "did you mean `material`?"),
        (SetCell("student", "material", "raed", ()), "did you mean `read`?"),
        (SetCell("student", "material", "read", ("publishd",)), "did you mean `published`?"),
        (SetCell("student", "material", "read", ("!locked",)), "which only a deny row may"),
        (SetCell("student", "material", "read", ("session_live & session_ended",)), "never holds"),
        (RemoveRow("p, student, *, material, raed, , allow"), "there is no row"),
        (RemoveRow("# Courses"), "there is no row"),
        (AddRow("p, a\np, b"), "a row is one line"),
        (AddRow("# Courses"), "`# Courses` is no row"),
        (AddRow(" , "), "` , ` is no row"),
        (DeleteFile("tests/curse.toml"), "did you mean `tests/course.toml`?"),
    ],
)
def test_an_edit_of_what_is_not_there_says_what_there_is(edit: Edit, says: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        edited(edit)
    assert says in str(caught.value)


def test_everything_that_edits_name_and_is_not_there_is_told_at_once() -> None:
    cell = SetCell("studnt", "material", "raed", ("publishd & !locked", "own & sharedview"))
    with pytest.raises(InvalidArgumentError) as caught:
        edited(cell, RemoveRow("p, nobody, *, quiz, read, , allow"), DeleteFile("curse.toml"))
    text = str(caught.value)
    for each in ("`studnt`", "`raed`", "`publishd`", "negates `locked`", "`sharedview`", "no row", "curse"):
        assert each in text
    with pytest.raises(InvalidArgumentError, match=r"; and 2 more problems$"):
        edited(SetCell("student", "material", "read", tuple("abcdefg")))


def test_a_cell_of_a_policy_with_faults_is_not_set() -> None:
    with pytest.raises(PolicyError):
        edited(AddRow("p, nobody, *, material, read, , allow"), SetCell("student", "material", "read", ()))


def test_rows_and_files_are_added_and_removed() -> None:
    row = "p, student, *, course, update, , allow"
    with_row = edited(AddRow(row), PutFile("notes.txt", "mine"))
    assert rows_changed(with_row) == ([row], [])
    assert with_row["notes.txt"] == "mine"
    assert (
        edit_files(with_row, [RemoveRow(f"  {row.replace(', ', ' ,')}"), DeleteFile("notes.txt")]) == SHIPPED
    )


@examples(40)
@given(
    cell=st.sampled_from(CELLS),
    when=st.lists(st.sets(st.sampled_from(FACTS), max_size=2).map(" & ".join), max_size=3),
)
def test_whatever_cell_is_set_the_diff_is_of_this_cell_and_of_heirs_alone(
    cell: tuple[str, str, str], when: list[str]
) -> None:
    try:
        after = compile_files(edited(SetCell(*cell, tuple(when))))
    except (FailedPreconditionError, InvalidArgumentError, PolicyError):
        return
    changed = {(each.role, each.type, each.action) for each in diff(POLICY, after).cells}
    heirs = {role for role, bases in POLICY.inherited.items() if cell[0] in bases}
    assert changed <= {(role, *cell[1:]) for role in heirs}
    got = [clause.condition for clause in after.clauses(None, *cell)[1]]
    wanted = [parse_condition(text) for text in when]
    for one, other in ((got, wanted), (wanted, got)):
        for condition in one:
            known = closure(condition)
            assert known is None or any(each.holds(known.required) for each in other)


def test_a_rebase_keeps_the_changes_of_both_sides() -> None:
    mine = edited(SetCell("student", "material", "read", ("",)), PutFile("mine.txt", "x"))
    theirs = edited(
        SetCell("teaching_assistant", "material", "publish", ("",)),
        SetCell("auditor", "notebook", "read", ()),
        PutFile("theirs.txt", "y"),
    )
    merged = rebase_files(SHIPPED, mine, theirs)
    both = edit_files(theirs, [SetCell("student", "material", "read", ("",)), PutFile("mine.txt", "x")])
    assert merged == both
    assert rebase_files(SHIPPED, mine, SHIPPED) == mine
    assert rebase_files(SHIPPED, SHIPPED, theirs) == theirs
    assert rebase_files(SHIPPED, mine, mine) == mine


def test_a_rebase_removes_moves_and_adds_rows_where_they_belong() -> None:
    base, mine, theirs = ({POLICY_FILE: "\n".join(rows)} for rows in ("abc", "dbaef", "xacyb"))
    assert rebase_files(base, mine, theirs) == {POLICY_FILE: "d\nx\na\ne\nf\ny\nb\n"}


def test_a_rebase_of_many_equal_lines_takes_steps_in_proportion() -> None:
    def rebase(count: int) -> None:
        files = ({POLICY_FILE: "#\n" * count + own} for own in ("", "mine\n", "theirs\n"))
        assert "mine\ntheirs\n" in rebase_files(*files)[POLICY_FILE].replace("#\n", "")

    assert count_steps(partial(rebase, 1000)) < 12 * count_steps(partial(rebase, 100))


def test_edits_end_when_their_call_does() -> None:
    left = iter(range(2))
    rows = [AddRow(f"p, student, *, quiz, read{number}, , allow") for number in range(3)]
    with pytest.raises(StopIteration):
        edit_files(SHIPPED, rows, require_not_cancelled=lambda: next(left))
    assert edit_files(SHIPPED, rows[:2], require_not_cancelled=partial(next, iter(range(2))))


def test_a_file_that_both_sides_changed_is_not_rebased() -> None:
    name = "tests/course.toml"
    with pytest.raises(FailedPreconditionError, match="have changed `tests/course"):
        rebase_files(SHIPPED, edited(PutFile(name, "a")), edited(PutFile(name, "b")))
    with pytest.raises(FailedPreconditionError, match="have changed `tests/course"):
        rebase_files(SHIPPED, edited(PutFile(name, "a")), edited(DeleteFile(name)))


WIDE, OWN = "p, student, *, notebook, read, , allow", "p, student, *, notebook, read, own, allow"
SHARED, OTHER = "p, student, *, notebook, read, shared_view, allow", "p, student, *, message, read, , allow"


@pytest.mark.parametrize(
    ("mine", "theirs", "merged"),
    [
        ([OTHER], [OTHER], [OTHER]),
        ([OTHER], [WIDE], []),
        ([OWN], [OWN], [OWN]),
        ([OWN, WIDE], [SHARED, WIDE], [OWN, SHARED, WIDE]),
        ([OWN], [SHARED], None),
        ([], [SHARED], None),
        ([OWN], [], None),
        ([OWN, OTHER], [SHARED], None),
    ],
)
def test_a_row_that_both_sides_have_changed_is_not_rebased(
    mine: list[str], theirs: list[str], merged: list[str] | None
) -> None:
    base, *sides = ({POLICY_FILE: "\n".join(rows) + "\n"} for rows in ([WIDE, OTHER], mine, theirs))
    if merged is not None:
        assert rebase_files(base, *sides) == {POLICY_FILE: "".join(f"{row}\n" for row in merged or [""])}
        return
    with pytest.raises(
        FailedPreconditionError, match="have changed the row `p, student, \\*, notebook, read"
    ):
        rebase_files(base, *sides)
