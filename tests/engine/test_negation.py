"""Negated facts in deny rows, on a campus: what they take, what they leave, and when time changes it."""

from __future__ import annotations

from authz.domain.decisions import Decision, Question, Reason
from authz.domain.entities import Course, CourseState, Membership, Resource, Share, ShareLevel, Visibility
from authz.domain.ids import ResourceRef, course_scope
from authz.domain.trace import Trace
from authz.engine.check import Checker
from authz.policy.load import POLICY_FILE
from tests.engine.campus import Campus
from tests.policies import SHIPPED, compiled
from tests.store.directory import user

NOW = 1_000
MAYA, NOOR = user("maya"), user("noor")
COURSES = ("private", "open")
NOTEBOOKS = {"mine": MAYA, "given": NOOR, "noors": NOOR, "nobodys": None}
CAMPUS = Campus(
    [
        *(Course(id=course, state=CourseState.ACTIVE) for course in COURSES),
        *(Membership(subject=MAYA, scope=course_scope(course), role="student") for course in COURSES),
        *(
            Resource(
                type="notebook",
                id=f"{course}-{name}",
                scope=course_scope(course),
                owner=owner,
                visibility=Visibility.COURSE,
            )
            for course in COURSES
            for name, owner in NOTEBOOKS.items()
        ),
        *(
            Share(resource=ResourceRef("notebook", f"{course}-given"), subject=MAYA, level=ShareLevel.VIEWER)
            for course in COURSES
        ),
        Resource(
            type="notebook",
            id="timed",
            scope=course_scope("private"),
            visibility=Visibility.COURSE,
            published=True,
            available_from=NOW + 10,
            available_until=NOW + 20,
        ),
    ]
)


def checker(row: str) -> Checker:
    """The default policy with one row more."""
    return Checker(compiled(f"{SHIPPED[POLICY_FILE]}{row}\n"))


def read(checker: Checker, name: str, now: int = NOW, trace: Trace | None = None) -> Decision:
    return checker.check(CAMPUS, Question(MAYA, "read", ResourceRef("notebook", name)), now, trace)


def test_students_of_one_course_read_their_own_notebooks_and_what_is_shared_with_them() -> None:
    deciding = checker("p, student, course:private, notebook, read, !own & !shared_view, deny")
    reasons = {name: read(deciding, f"private-{name}").reason for name in NOTEBOOKS}
    assert reasons == {
        "mine": Reason.ROLE_GRANT,
        "given": Reason.ROLE_GRANT,
        "noors": Reason.EXPLICIT_DENY,
        "nobodys": Reason.EXPLICIT_DENY,
    }
    assert all(read(deciding, f"open-{name}").allowed for name in NOTEBOOKS)


def test_an_answer_is_valid_until_a_negated_fact_changes() -> None:
    deciding = checker("p, student, course:private, notebook, read, !published, deny")
    answers = [read(deciding, "timed", now) for now in (NOW, NOW + 10, NOW + 20)]
    assert [answer.allowed for answer in answers] == [False, True, False]
    assert [answer.valid_until for answer in answers] == [NOW + 10, NOW + 20, None]


def test_a_trace_tells_which_negated_fact_holds() -> None:
    deciding = checker("p, student, course:private, notebook, read, !own & !shared_view, deny")
    for name, unmet in (("private-noors", ()), ("private-given", ("shared_view",))):
        trace = Trace()
        read(deciding, name, trace=trace)
        told = next(each for each in trace.rules if each.rule.condition == "!own & !shared_view")
        assert told.unmet_facts == unmet
        assert told.matches is (not unmet)
