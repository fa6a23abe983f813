"""The compiled policies of courses that a process keeps."""

from __future__ import annotations

from typing import Any, cast

import pytest

from authz.domain.decisions import Reason
from authz.domain.entities import PolicyActivation, PolicyVersion
from authz.domain.files import FORMAT, files_digest
from authz.domain.ids import course_scope
from authz.engine import course_policies
from authz.engine.course_policies import CoursePolicies
from authz.policy.course import course_files
from authz.policy.load import compile_files
from tests.policies import POLICY, with_rows

ROW = "p, student, course:{}, notebook, read, , deny\n"
SIZE = 2
"""Of a policy with one row of one cell."""


class Versions:
    """Gives each course a policy, and notes for which courses it was asked."""

    def __init__(self, row: str = ROW) -> None:
        self.row = row
        self.asked = ""

    def policy_version(self, active: PolicyActivation) -> PolicyVersion:
        self.asked += active.scope.id
        files = self.files(active.scope.id)
        return PolicyVersion(
            scope=active.scope, number=1, digest=files_digest(files), files=files, format=FORMAT
        )

    def files(self, course_id: str) -> str:
        return course_files(self.row.format(course_id))

    def ask(self, kept: CoursePolicies, course_ids: str) -> None:
        for course_id in course_ids:
            digest = files_digest(self.files(course_id))
            active = PolicyActivation(scope=course_scope(course_id), number=1, digest=digest)
            policy = kept.in_course(active, cast("Any", self))
            denies, _ = policy.clauses(course_id, "student", "notebook", "read")
            assert [c.rule.scope for c in denies if c.rule in policy.own_rules] == [
                f"course:{course_id}" for _ in policy.own_rules
            ]


@pytest.mark.parametrize(
    ("row", "max_cached", "asked", "compiled"),
    [
        (ROW, 2 * SIZE, "abab", "ab"),
        (ROW, 2 * SIZE, "abacab", "abcab"),
        (ROW, SIZE - 1, "aab", "aab"),
        ("# {}\n", 2, "abacab", "abcab"),
    ],
    ids=[
        "what is kept is not compiled again",
        "the oldest makes room",
        "what is larger than all that may be kept is compiled each time",
        "a policy without rules takes room, too",
    ],
)
def test_a_bounded_number_of_policies_is_kept(
    monkeypatch: pytest.MonkeyPatch, row: str, max_cached: int, asked: str, compiled: str
) -> None:
    monkeypatch.setattr(course_policies, "_MAX_CACHED", max_cached)
    versions, kept = Versions(row), CoursePolicies(POLICY)
    versions.ask(kept, asked)
    assert versions.asked == compiled


def test_of_courses_with_equal_files_each_has_the_exceptions_that_the_platform_made_for_it() -> None:
    platform = compile_files(with_rows("p, student, course:a, notebook, read, , deny"))
    versions, kept = Versions("# none"), CoursePolicies(platform)

    def reason_in(course_id: str) -> Reason:
        digest = files_digest(versions.files(course_id))
        active = PolicyActivation(scope=course_scope(course_id), number=1, digest=digest)
        policy = kept.in_course(active, cast("Any", versions))
        return policy.rules_for(frozenset({"student"}), course_id, "notebook", "read").verdict(0).reason

    assert [reason_in(each) for each in "abab"] == [Reason.EXPLICIT_DENY, Reason.CONDITION_NOT_MET] * 2


def test_courses_share_the_compiled_rules_that_they_do_not_change() -> None:
    versions, roles = Versions(), frozenset({"student"})
    changed = CoursePolicies(POLICY).in_course(
        PolicyActivation(scope=course_scope("a"), number=1, digest=files_digest(versions.files("a"))),
        cast("Any", versions),
    )

    def shares(course_id: str, role: str, type_name: str, action: str) -> bool:
        found = changed.rules_for(roles | {role}, course_id, type_name, action)
        return found is POLICY.rules_for(roles | {role}, None, type_name, action)

    assert shares("a", "student", "notebook", "update")
    assert shares("b", "student", "notebook", "read")
    assert not shares("a", "student", "notebook", "read")
    assert not shares("a", "teacher", "notebook", "read")
