"""A copy of a role: it may what the original may, and then goes its own way."""

from __future__ import annotations

import pytest

from authz.domain.errors import InvalidArgumentError, PolicyError
from authz.domain.ids import course_scope
from authz.policy.compile import CompiledPolicy
from authz.policy.copy_role import copy_role
from authz.policy.course import COURSE_FILE, load_course_policy
from tests.facts import BITS, bits
from tests.policy.reference import decide
from tests.policy.test_compile import policy_of

HERE, THERE = course_scope("here"), course_scope("there")
RULES = (
    "p, teacher, *, quiz, grade, own, allow\n"
    "p, owner, *, poll, vote, , allow\n"
    "p, owner, course:here, poll, vote, !own & !published, deny\n"
)


def answers(policy: CompiledPolicy, role: str) -> list[bool]:
    """What the role may do, with each fact alone and with none."""
    return [
        decide(policy, frozenset([role]), scope, declared.name, action, facts).allowed
        for scope in (HERE, THERE)
        for declared in policy.vocabulary.types.values()
        for action in declared.actions
        for facts in (0, *BITS)
    ]


def test_a_copy_may_what_its_original_may_in_every_course_and_by_every_base() -> None:
    lines = copy_role(policy_of(RULES), "owner", "keeper")
    policy = policy_of(RULES + lines)
    assert answers(policy, "keeper") == answers(policy, "owner")
    assert policy.vocabulary.roles["keeper"].rank == policy.vocabulary.roles["owner"].rank


def test_what_no_course_may_have_a_rule_about_is_locked_of_a_copy_too() -> None:
    locked = "lock, owner, quiz, grade\nlock, *, poll, *\n"
    policy = policy_of(RULES + locked + copy_role(policy_of(RULES + locked), "owner", "keeper"))
    rule = "p, {}, course:here, quiz, {}, , allow\n"
    for role in ("owner", "keeper"):
        with pytest.raises(PolicyError, match="lock"):
            load_course_policy(policy, "here", {COURSE_FILE: rule.format(role, "grade")})
        load_course_policy(policy, "here", {COURSE_FILE: rule.format(role, "read")})


def test_a_copy_is_changed_without_its_original_and_the_original_without_it() -> None:
    before = policy_of(RULES)
    lines = copy_role(before, "teacher", "grader", rank=1)
    policy = policy_of(
        RULES + lines.replace("quiz, grade, own", "quiz, grade, ") + "p, teacher, *, poll, vote, , allow\n",
    )
    grader, teacher = frozenset(["grader"]), frozenset(["teacher"])
    assert decide(policy, grader, THERE, "quiz", "grade", 0).allowed
    assert not decide(policy, teacher, THERE, "quiz", "grade", 0).allowed
    assert decide(policy, teacher, THERE, "quiz", "grade", bits("own")).allowed
    assert not decide(policy, grader, THERE, "poll", "vote", 0).allowed
    assert policy.vocabulary.roles["grader"].rank == 1


@pytest.mark.parametrize(
    ("original", "name", "message"),
    [
        ("techer", "grader", "unknown role `techer`; did you mean `teacher`?"),
        ("teacher", "student", "role `student` exists; choose another name for the copy"),
        ("teacher", "a b", "`a b` is not a name"),
    ],
)
def test_what_cannot_be_copied_is_refused(original: str, name: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message.replace("?", r"\?")):
        copy_role(policy_of(RULES), original, name)
