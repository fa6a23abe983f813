"""A candidate beside the active policy: what is counted of it, with which examples, and at which cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from authz.domain.decisions import Decision, Question, Reason
from authz.domain.entities import Course, CourseState, Membership, PolicyActivation, PolicyVersion, Resource
from authz.domain.files import FORMAT, files_digest, read_files
from authz.domain.ids import PLATFORM, ResourceRef, Subject, course_scope
from authz.domain.shadow import MAX_EXAMPLES_PER_CELL, PolicyShadow, ShadowCell, ShadowCount, ShadowTally
from authz.engine.check import Checker
from authz.engine.policies import ActiveChecker, CompiledPolicies
from authz.engine.shadow_comparison import ShadowComparison
from authz.policy.course import course_files, load_course_policy
from authz.policy.load import compile_files
from tests.engine.campus import Campus
from tests.policies import CLOSED, SHIPPED, with_rows
from tests.store.directory import user

NOW = 1_000
ENDS_AT = NOW + 1_000
MAYA, TESS, OMAR = user("maya"), user("tess"), user("omar")
OWN = course_files("p, grader, course:own, material, read, , allow\n")
"""By a role that only some policies declare."""
VERSION = PolicyVersion(
    scope=course_scope("own"), number=1, digest=files_digest(OWN), files=OWN, format=FORMAT
)
CAMPUS = Campus(
    [
        Course(id="algebra", state=CourseState.ACTIVE),
        Course(id="own", state=CourseState.ACTIVE),
        Membership(subject=MAYA, scope=course_scope("algebra"), role="student"),
        Membership(subject=TESS, scope=course_scope("algebra"), role="student"),
        Membership(subject=TESS, scope=course_scope("algebra"), role="auditor"),
        Membership(subject=MAYA, scope=course_scope("own"), role="student"),
        *(
            Resource(type="material", id=f"{course}-{name}", scope=course_scope(course), published=True)
            for course in ("algebra", "own")
            for name in ("a", "b", "c", "d")
        ),
        VERSION,
        PolicyActivation(scope=VERSION.scope, number=1, digest=VERSION.digest),
    ]
)


def checker(files: Mapping[str, str], number: int = 0) -> Checker:
    version = (
        None
        if not number
        else PolicyVersion(scope=PLATFORM, number=number, digest="d", files="{}", format=FORMAT)
    )
    return Checker(compile_files(files), version=version)


ACTIVE = checker(with_rows("role, grader, course, 30, no,"), 3)


def running(files: Mapping[str, str], *, budget_us: int = 10_000_000, against: int = 3) -> ShadowComparison:
    shadow = PolicyShadow(
        id="s",
        against_number=against,
        sample_rate=1.0,
        budget_us=budget_us,
        author="ada",
        started_at=NOW,
        ends_at=ENDS_AT,
    )
    return ShadowComparison(shadow, checker(files))


def asked(
    run: ShadowComparison,
    subject: Subject = MAYA,
    name: str = "algebra-a",
    action: str = "read",
    *,
    now: int = NOW,
    times: int = 1,
) -> Decision:
    question = Question(subject, action, ResourceRef("material", name))
    for _ in range(times):
        decision = ACTIVE.check(CAMPUS, question, now)
        run.compare(ACTIVE, CAMPUS, question, now, decision)
    return decision


def taken(run: ShadowComparison) -> ShadowTally:
    tally = run.take()
    assert tally is not None
    return tally


def test_differences_are_counted_by_the_roles_that_somebody_holds() -> None:
    run = running(CLOSED)
    asked(run, times=3)
    asked(run, TESS, times=2)
    asked(run, OMAR)
    asked(run, action="update")
    tally = taken(run)
    assert (tally.compared, tally.differing, tally.failed, tally.skipped) == (7, 5, 0, 0)
    assert tally.cells == (
        ShadowCount(ShadowCell(("student",), "material", "read", False), 3),
        ShadowCount(ShadowCell(("auditor", "student"), "material", "read", False), 2),
    )
    assert run.take() is None


def test_an_example_tells_what_both_sides_decided_and_why() -> None:
    run = running(
        with_rows("p, student, *, material, publish, own, allow", "p, *, *, material, read, , deny")
    )
    asked(run, name="algebra-b")
    (example,) = taken(run).examples
    assert (example.subject, str(example.resource), str(example.scope), example.at) == (
        MAYA,
        "material:algebra-b",
        "course:algebra",
        NOW,
    )
    assert "published" in example.facts
    assert example.active is not None and example.candidate is not None
    assert (example.active.allowed, example.active.reason) == (True, Reason.ROLE_GRANT)
    assert (example.candidate.allowed, example.candidate.reason) == (False, Reason.EXPLICIT_DENY)
    assert example.candidate.rule is not None and example.candidate.rule.effect == "deny"


def test_examples_are_few_for_each_cell_however_often_the_counts_are_taken() -> None:
    run = running(CLOSED)
    found = []
    for _ in range(3):
        for name in ("algebra-a", "algebra-b", "algebra-c", "algebra-d"):
            asked(run, name=name)
        found.append(len(taken(run).examples))
    assert found == [MAX_EXAMPLES_PER_CELL, 0, 0]


def test_a_question_that_callers_repeat_is_one_example_in_all_processes() -> None:
    tallies = []
    for run in (running(CLOSED), running(CLOSED)):
        asked(run, times=3)
        tallies.append(taken(run))
        asked(run)
        tallies.append(taken(run))
    first, *later = tallies
    for tally in later:
        first = first.plus(tally)
    assert (first.differing, len(first.examples)) == (8, 1)


def test_what_the_candidate_does_not_declare_is_lost_and_is_no_failure() -> None:
    about = (", material, ", "type, material,", ", publish,")
    rows = [row for row in SHIPPED["default.csv"].splitlines() if not any(each in row for each in about)]
    run = running({**SHIPPED, "default.csv": "\n".join(rows) + "\n"})
    assert asked(run).allowed
    tally = taken(run)
    assert (tally.differing, tally.failed) == (1, 0)
    assert tally.examples[0].candidate is None


def test_a_candidate_under_which_a_course_cannot_be_decided_is_counted_as_failed() -> None:
    run = running(SHIPPED)
    assert asked(run, name="own-a").allowed
    asked(run)
    tally = taken(run)
    assert (tally.compared, tally.differing, tally.failed) == (1, 0, 1)
    assert "grader" in tally.last_failure


def test_a_spent_budget_leaves_the_rest_uncompared() -> None:
    run = running(CLOSED, budget_us=1)
    assert asked(run, times=100).allowed
    tally = taken(run)
    assert tally.compared + tally.skipped == 100
    assert tally.skipped > 0


def test_nothing_is_compared_with_another_version_nor_after_the_end() -> None:
    for run, now in ((running(CLOSED, against=2), NOW), (running(CLOSED), ENDS_AT)):
        asked(run, now=now)
        assert run.take() is None


def test_what_was_not_saved_is_counted_with_the_next() -> None:
    run = running(CLOSED)
    asked(run, times=2)
    run.put_back(taken(run))
    asked(run, TESS)
    tally = taken(run)
    assert (tally.compared, tally.differing, len(tally.cells), len(tally.examples)) == (3, 3, 2, 2)


def running_in_course(rows: str, **changes: Any) -> ShadowComparison:
    """A shadow of a policy of `own`, beside the version that is active there."""
    fields = {"scope": course_scope("own"), "against_course_number": 1} | changes
    shadow = msgspec.structs.replace(running(SHIPPED).shadow, **fields)
    unused: Any = None  # no snapshot is read
    checkers = ActiveChecker(unused, CompiledPolicies(), unused, inline_types=frozenset())
    policy = load_course_policy(ACTIVE.policy, shadow.scope.id, read_files(course_files(rows)))
    return ShadowComparison(shadow, checkers.course_checker(policy))


def test_a_policy_of_a_course_is_compared_in_place_of_the_active_one_and_in_its_course_alone() -> None:
    run = running_in_course("p, student, course:own, material, read, , deny\n")
    assert asked(run, name="own-a").allowed
    asked(run, name="own-a", action="update")
    asked(run, name="algebra-a")
    asked(run, name="no-such")
    tally = taken(run)
    assert (tally.compared, tally.differing, tally.failed) == (2, 1, 0)
    assert tally.cells == (ShadowCount(ShadowCell(("student",), "material", "read", False), 1),)
    assert str(tally.examples[0].scope) == "course:own"


def test_a_row_of_the_active_policy_that_the_candidate_leaves_out_does_not_decide_in_it() -> None:
    active = "p, student, course:own, material, update, , allow\n"
    version = msgspec.structs.replace(VERSION, files=course_files(active), digest="other")
    campus = Campus(
        [
            Course(id="own", state=CourseState.ACTIVE),
            Membership(subject=MAYA, scope=course_scope("own"), role="student"),
            Resource(type="material", id="own-a", scope=course_scope("own"), published=True),
            version,
            PolicyActivation(scope=version.scope, number=1, digest="other"),
        ]
    )
    run = running_in_course("")
    question = Question(MAYA, "update", ResourceRef("material", "own-a"))
    decision = ACTIVE.check(campus, question, NOW)
    assert decision.allowed
    run.compare(ACTIVE, campus, question, NOW, decision)
    assert [str(each.cell) for each in taken(run).cells] == ["student loses update on material"]


@pytest.mark.parametrize(
    "changes", [{"against_course_number": 2}, {"against_course_number": 0}, {"against_number": 2}]
)
def test_a_policy_of_a_course_is_compared_with_the_versions_of_the_start_alone(
    changes: dict[str, int],
) -> None:
    run = running_in_course("", **changes)
    asked(run, name="own-a")
    assert run.take() is None
