"""Check, the trace of Explain and its nearest grants give one reason why a membership gives nothing."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from authz.domain.decisions import Question
from authz.domain.effective_roles import InactiveReason
from authz.domain.entities import (
    Account,
    AccountStatus,
    Course,
    CourseState,
    Entity,
    Membership,
    MembershipStatus,
    Session,
)
from authz.domain.explanation import ChangeKind
from authz.domain.ids import PLATFORM, ResourceRef
from authz.engine.explain import explain
from tests.engine.campus import Campus
from tests.engine.test_explain import CHECKER, DAY, HERE, MAYA, MONDAY
from tests.engine.test_isolation import NOW
from tests.properties import examples

dates = st.sampled_from([None, -DAY, DAY, 2 * DAY])


@st.composite
def crowds(draw: st.DrawFn) -> list[Entity]:
    """A course and its session with what Maya may hold there, on the platform and as an account."""
    course = Course(id="algebra", state=draw(st.sampled_from(CourseState)))
    session = Session(id="monday", course_id="algebra", open_to_course=draw(st.booleans()))
    found: list[Entity] = [course, session]
    for scope, roles in (
        (HERE, ("student", "teacher", "auditor")),
        (MONDAY, ("host", "guest")),
        (PLATFORM, ("support_agent",)),
    ):
        for role in draw(st.lists(st.sampled_from(roles), unique=True, max_size=2)):
            given_at: dict[str, Any] = {
                name: None if days is None else NOW + days
                for name in ("starts_at", "suspended_until")
                for days in [draw(dates)]
            }
            ends_at = draw(st.sampled_from([None, NOW, NOW + 3 * DAY]))
            starts_at = given_at["starts_at"]
            if ends_at is not None and starts_at is not None and starts_at >= ends_at:
                ends_at = None
            status = draw(st.sampled_from(MembershipStatus))
            found.append(
                Membership(subject=MAYA, scope=scope, role=role, status=status, ends_at=ends_at, **given_at)
            )
    if draw(st.booleans()):
        until = draw(st.sampled_from([None, NOW + DAY]))
        found.append(Account(subject=MAYA, status=AccountStatus.SUSPENDED, suspended_until=until))
    return found


@examples(300)
@given(crowds(), st.sampled_from([ResourceRef("session", "monday"), ResourceRef("course", "algebra")]))
def test_check_the_trace_and_the_nearest_grants_give_the_same_reason(
    entities: list[Entity], ref: ResourceRef
) -> None:
    action = "join" if ref.type == "session" else "update"
    campus, question = Campus(entities), Question(MAYA, action, ref)
    explanation = explain(CHECKER, campus, question, NOW)
    assert explanation.decision == CHECKER.check(campus, question, NOW)
    why = {(each.scope, each.terms.role): each.inactive_reason for each in explanation.trace.memberships}
    if explanation.decision.verdict.inactive_reason is not None:
        assert explanation.decision.verdict.inactive_reason in why.values()
    for change in {change for changes in explanation.nearest_grants for change in changes}:
        if change.kind is ChangeKind.MEMBERSHIP:
            assert change.scope is not None
            place = change.scope, change.roles[0]
            assert change.inactive_reason is why[place]
            if change.at is not None:
                later = explain(CHECKER, campus, question, change.at)
                given_ = {(each.scope, each.terms.role): each for each in later.trace.memberships}
                draft = InactiveReason.DRAFT_COURSE
                assert given_[place].gives or given_[place].inactive_reason is draft
