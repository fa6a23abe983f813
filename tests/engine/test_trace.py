"""A decision that is asked to explain itself: the same answer, and everything that led to it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from authz.domain.decisions import Question, Reason
from authz.domain.effective_roles import InactiveReason
from authz.domain.entities import Course, CourseState, Entity, Membership, MembershipStatus, Resource, Session
from authz.domain.ids import PLATFORM, ResourceRef, course_scope, session_scope
from authz.domain.trace import Trace
from authz.engine.check import Checker
from tests.engine.campus import Campus
from tests.engine.test_isolation import CHECKERS, NOW, campuses, questions
from tests.policies import POLICY
from tests.properties import examples
from tests.store.directory import user

CHECKER = Checker(POLICY)
MAYA = user("maya")
HERE, MONDAY = course_scope("algebra"), session_scope("monday")
CAMPUS: list[Entity] = [
    Course(id="algebra", state=CourseState.ACTIVE),
    Session(id="monday", course_id="algebra"),
    Membership(subject=MAYA, scope=HERE, role="student"),
    Membership(subject=MAYA, scope=MONDAY, role="guest", status=MembershipStatus.INVITED),
    Membership(subject=MAYA, scope=PLATFORM, role="platform_admin"),
    Resource(type="material", id="exam", scope=MONDAY, owner=user("nadia")),
]


def traced(entities: list[Entity], action: str, ref: ResourceRef) -> tuple[Reason, Trace]:
    trace = Trace()
    decision = CHECKER.check(Campus(entities), Question(MAYA, action, ref), NOW, trace)
    return decision.reason, trace


def test_every_membership_is_told_with_its_scope_and_what_it_gives() -> None:
    _, trace = traced(CAMPUS, "read", ResourceRef("material", "exam"))
    assert trace.scopes == (PLATFORM, HERE, MONDAY)
    told = {str(m.scope): (m.terms.role, m.gives, m.inactive_reason, m.counts) for m in trace.memberships}
    assert told == {
        "platform": ("platform_admin", "platform_admin", None, False),
        "course:algebra": ("student", "student", None, True),
        "session:monday": ("guest", "", InactiveReason.INVITED, True),
    }


def test_every_fact_that_holds_is_traced() -> None:
    _, trace = traced(CAMPUS, "read", ResourceRef("material", "exam"))
    assert trace.facts == 0


def test_every_rule_that_spoke_is_told_with_what_it_misses() -> None:
    reason, trace = traced(CAMPUS, "update", ResourceRef("material", "exam"))
    assert reason is Reason.NO_RULE
    assert {each.rule.effect for each in trace.rules} == {"deny"}
    reason, trace = traced(CAMPUS, "read", ResourceRef("material", "exam"))
    assert reason is Reason.CONDITION_NOT_MET
    conditions = {each.rule.condition: each.matches for each in trace.rules}
    assert conditions == {"for_ai_response": False, "published": False}


def test_without_a_role_no_rule_is_consulted() -> None:
    gone = [e for e in CAMPUS if not (isinstance(e, Membership) and e.role == "student")]
    reason, trace = traced(gone, "read", ResourceRef("material", "exam"))
    assert reason is Reason.MEMBERSHIP_NOT_EFFECTIVE
    assert len(trace.memberships) == 2
    assert (trace.facts, trace.rules) == (None, ())


@examples(100)
@given(st.data())
def test_a_trace_changes_no_answer_and_agrees_with_it(data: st.DataObject) -> None:
    entities = data.draw(campuses())
    campus = Campus(entities)
    question = data.draw(questions(entities))
    for checker in CHECKERS:
        trace = Trace()
        decision = checker.check(campus, question, NOW, trace)
        assert decision == checker.check(campus, question, NOW)
        if decision.reason in (Reason.NOT_A_MEMBER, Reason.MEMBERSHIP_NOT_EFFECTIVE):
            assert not any(m.gives and m.counts for m in trace.memberships)
        matching = [each.rule for each in trace.rules if each.matches]
        if decision.reason is Reason.EXPLICIT_DENY:
            assert decision.rule == next(rule for rule in matching if rule.effect == "deny")
        elif decision.reason is Reason.ROLE_GRANT:
            assert {rule.effect for rule in matching} == {"allow"}
            assert decision.rule == matching[0]
        elif decision.reason is Reason.CONDITION_NOT_MET:
            assert not matching
            assert decision.verdict.unmet == next(e.unmet for e in trace.rules if e.rule == decision.rule)
