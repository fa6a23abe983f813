"""Warnings: rows that do nothing, and rows that do more than they seem to."""

from __future__ import annotations

import pytest

from authz.policy.lint import lint
from authz.policy.load import POLICY_FILE, load_policy, policy_directory
from tests.policies import compiled

DECLARED = """\
role, owner, course, 50, yes,
role, teacher, course, 40, yes,
role, student, course, 20, no,
role, guest, session, 10, no,
type, course, read|manage_members
type, notebook, read|update|moderate
g, owner, teacher
p, teacher, *, course, manage_members, , allow
p, teacher, *, notebook, read, , allow
p, student, *, notebook, read, own, allow
p, student, *, notebook, read, shared_view, allow
"""
FIRST = DECLARED.count("\n") + 1
NOTHING = "changes nothing: default.csv:{} matches whenever it does; remove one"


OF_COURSES = [("a", "moderate"), ("a", "update"), ("b", "moderate")]


def warnings_of(rows: str) -> list[str]:
    """The warnings of the declarations above, which have none, and these rows."""
    warnings = lint(compiled(DECLARED + rows))
    return [str(warning).removeprefix(f"{POLICY_FILE}:{FIRST}: ") for warning in warnings]


@pytest.mark.parametrize(
    ("rows", "warning"),
    [
        ("p, student, *, notebook, read, own & published, allow", NOTHING.format(10)),
        ("p, student, *, notebook, read, shared_edit, allow", NOTHING.format(11)),
        ("p, student, course:a, notebook, read, own, allow", NOTHING.format(10)),
        ("p, owner, *, notebook, read, , allow", NOTHING.format(9)),
        (
            "p, student, *, notebook, update, own & locked, allow\np, *, *, *, update, locked, deny",
            "never allows: the deny row default.csv:13 matches whenever it does; remove one of them",
        ),
        (
            "p, student, *, notebook, moderate, course_visible, allow",
            "`student` has moderate on notebook, but not read when `course_visible`;"
            " add a row for `read`, or a condition",
        ),
        (
            "p, student, course:a, notebook, read, !own, deny",
            "also takes what a share gives (`read` on notebook, default.csv:11);"
            " add `& !shared_view` to keep it",
        ),
        (
            "role, boss, course, 60, yes,",
            "role `boss`: no role with `manage_members` has a rank above 60, so nobody can give it;"
            " lower its rank",
        ),
        (
            "role, helper, course, 25, no,\ng, helper, owner",
            "role `helper`: has every right of `owner`, whose rank is higher; raise its rank,"
            " or inherit another role",
        ),
    ],
)
def test_what_is_legal_and_surprising_is_named(rows: str, warning: str) -> None:
    assert warning in warnings_of(rows + "\n")


@pytest.mark.parametrize(
    "rows",
    [
        "",
        "p, student, *, notebook, read, published, allow",
        "p, student, *, notebook, read, !own & !shared_view, deny",
        "p, *, *, *, read, locked, deny",
        "p, student, *, notebook, moderate, own, allow",
        "p, student, *, notebook, update, own & locked, allow\np, *, *, *, update, locked & !own, deny",
    ],
)
def test_what_is_as_it_seems_has_no_warning(rows: str) -> None:
    assert warnings_of(rows + "\n") == []


OVER = """\
role, learner, course, 20, no, reader
role, reader, course, 10, no,
p, learner, *, notebook, read, , allow
p, reader, *, notebook, read, published, allow
"""


@pytest.mark.parametrize("denied", ["", "published", "!own", "locked"])
def test_a_deny_that_ends_with_the_course_is_named(denied: str) -> None:
    deny = f"p, learner, course:a, notebook, read, {denied}, deny\n"
    ends = (
        "ends with the course: `learner` becomes `reader`, which has read on notebook;"
        " add such a row for `reader`, too"
    )
    told = [each for each in warnings_of(OVER + deny) if "ends with the course" in each]
    assert told == [f"default.csv:{FIRST + 4}: {ends}"]
    assert not any(
        "ends with" in each for each in warnings_of(OVER + deny + deny.replace("learner", "reader"))
    )


@pytest.mark.parametrize(
    "row",
    [
        "p, learner, *, notebook, read, !published, deny",
        "p, learner, *, notebook, update, , deny",
        "p, *, *, notebook, read, own, deny",
        "p, learner, *, notebook, read, own, deny\np, *, *, notebook, read, own, deny",
    ],
)
def test_a_deny_of_what_the_later_role_does_not_have_does_not_end(row: str) -> None:
    assert not any("ends with" in each for each in warnings_of(OVER + row + "\n"))


def test_rows_about_a_course_in_the_file_of_the_platform_are_named_once_a_course() -> None:
    rows = [f"p, owner, course:{course}, notebook, {action}, , allow" for course, action in OF_COURSES]
    warnings = warnings_of("\n".join(rows) + "\n")
    assert len(warnings) == 2
    # The same text, so that the warnings of many courses print as one.
    exception = "is an exception for one course, which that course cannot change"
    assert warnings[0].startswith(exception)
    assert warnings[1].startswith(f"default.csv:{FIRST + 2}: {exception}")


def test_of_two_rows_that_say_the_same_only_the_later_is_too_much() -> None:
    rows = "p, student, *, notebook, update, shared_edit, allow\n"
    same = "p, student, *, notebook, update, shared_edit & shared_view, allow\n"
    assert warnings_of(rows + same) == [f"default.csv:{FIRST + 1}: " + NOTHING.format(FIRST)]


def test_the_shipped_policy_has_no_warning() -> None:
    assert lint(load_policy(policy_directory())) == ()
