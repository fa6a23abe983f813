"""What can be so together, as the prover has it, is what a directory can hold: no less and no more."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from authz.domain.decisions import Question, Reason
from authz.domain.facts import ALL_FACTS, FACTS, consequences
from authz.domain.trace import Trace
from authz.engine.check import Checker
from authz.policy.condition import Condition
from authz.policy.counterexample import counterexample
from authz.policy.invariants import Never
from authz.policy.obligations import Obligation
from authz.policy.prove import Breach
from authz.policy.situations import Situation, situations_of
from tests.engine.campus import Campus
from tests.engine.test_isolation import NOW, campuses, questions
from tests.policies import POLICY
from tests.properties import examples

CHECKER = Checker(POLICY)
ROLES = POLICY.vocabulary.roles
CELLS = [(t.name, action) for t in POLICY.vocabulary.types.values() for action in t.actions]


def agrees(situation: Situation, roles: Iterable[str], facts: int) -> bool:
    """Whether somebody with exactly these roles can have exactly these facts in the situation."""
    demands = situation.demands([ROLES[name] for name in roles])
    if demands is None or facts & demands.named != demands.required:
        return False
    return consequences(facts, ALL_FACTS & ~facts) is not None


@st.composite
def asked(draw: st.DrawFn) -> tuple[Campus, Question]:
    entities = draw(campuses())
    return Campus(entities), draw(questions(entities))


@examples(150)
@given(asked())
def test_whatever_a_directory_holds_is_a_situation(drawn: tuple[Campus, Question]) -> None:
    campus, question = drawn
    trace = Trace()
    decision = CHECKER.check(campus, question, NOW, trace)
    if decision.reason in (Reason.ROLE_GRANT, Reason.EXPLICIT_DENY, Reason.CONDITION_NOT_MET, Reason.NO_RULE):
        roles = {each.gives for each in trace.memberships if each.gives}
        assert trace.facts is not None
        situations = situations_of(question.resource.type, question.action)
        assert any(agrees(situation, roles, trace.facts) for situation in situations)


@examples(150)
@given(
    cell=st.sampled_from(CELLS),
    place=st.integers(0, 2),
    roles=st.sets(st.sampled_from(sorted(ROLES)), min_size=1, max_size=3),
    facts=st.sets(st.sampled_from(FACTS), max_size=5),
)
def test_every_situation_is_held_by_a_directory(
    cell: tuple[str, str], place: int, roles: set[str], facts: set[object]
) -> None:
    situations = situations_of(*cell)
    situation = situations[place % len(situations)]
    demands = situation.demands([ROLES[name] for name in roles])
    if demands is None:
        return
    wanted = sum(fact.bit for fact in FACTS if fact in facts) & ~demands.forbidden | demands.required
    closed = consequences(wanted, demands.forbidden)
    if closed is None:
        return
    example = counterexample(_breach(cell, situation, roles, closed[0]), POLICY.vocabulary)
    trace = Trace()
    CHECKER.check(Campus(example.entities), example.question, example.now, trace)
    assert {each.gives for each in trace.memberships} == roles
    assert trace.facts == closed[0]


def _breach(cell: tuple[str, str], situation: Situation, roles: Iterable[str], facts: int) -> Breach:
    never = Never("x", "x", frozenset((cell,)), frozenset(roles), Condition())
    obligation = Obligation(
        never, None, tuple(sorted(roles)), *cell, situation, POLICY.rules[0], Condition(), ()
    )
    return Breach(obligation, facts)
