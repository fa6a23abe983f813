"""Every answer is that of the oracle, by any policy, in courses with and without a policy of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.decisions import Question
from authz.domain.entities import Course, Entity, Resource, Session
from authz.domain.facts import fact_names
from authz.domain.files import read_files
from authz.domain.ids import ResourceRef, ScopeKind
from authz.domain.trace import Trace
from authz.engine.check import Checker
from authz.policy.compile import CompiledPolicy
from authz.policy.course import COURSE_FILE
from tests.engine.campus import Campus
from tests.engine.generators import (
    LINES,
    NOW,
    PEOPLE,
    SCOPES,
    SOON,
    campuses,
    edits,
    own_policy,
    own_rules,
    pairs,
)
from tests.oracle.oracle import Oracle
from tests.properties import examples

PURPOSES = ("", "ai_response", "training")
LATER = (*range(NOW + 1, NOW + 16), *range(SOON - 8, SOON + 16))
"""Whenever something begins or ends in a random campus."""


class Asked(msgspec.Struct, frozen=True):
    """What the service and the oracle decide about, and the questions to both."""

    entities: list[Entity]
    lines: list[str]
    own_lines: list[str]
    policy: CompiledPolicy
    questions: list[Question]

    def __repr__(self) -> str:
        """Without the questions, which follow from the entities."""
        added = [line for line in self.lines if line not in LINES]
        gone = [line for line in LINES if line not in self.lines]
        return f"{self.entities} by the policy without {gone}, with {added}, and in course a {self.own_lines}"

    @property
    def oracle(self) -> Oracle:
        return Oracle(self.entities, self.lines, self.own_lines)

    @property
    def checker(self) -> Checker:
        return Checker(self.policy)


@st.composite
def asked(draw: st.DrawFn) -> Asked:
    """A campus with any policy, in course a with one of its own."""
    entities, about = draw(campuses()), draw(pairs)
    policy, lines = draw(edits(about))
    version, activation = own_policy(draw(own_rules(about)), policy)
    own_lines = read_files(version.files)[COURSE_FILE].splitlines()
    every = list(questions(entities, policy))
    return Asked([*entities, version, activation], lines, own_lines, policy, every)


def questions(entities: Sequence[Entity], policy: CompiledPolicy) -> Iterator[Question]:
    """What anybody may ask about anything there is, and about what there is not."""
    refs = [ResourceRef("notebook", "unknown")]
    for each in {entity.key: entity for entity in entities}.values():
        match each:
            case Resource():
                refs.append(each.key)
            case Course() | Session():
                refs.append(ResourceRef(type(each).__name__.lower(), each.id))
            case _:
                pass
    for subject in PEOPLE:
        for ref in refs:
            for action in policy.vocabulary.types[ref.type].actions:
                for purpose in () if action == "create" else PURPOSES:
                    yield Question(subject, action, ref, purpose=purpose)
            yield Question(subject, "read", ref, stated_course_id="a")
            yield Question(subject, "read", ref, stated_session_id="in-b")
        for scope in SCOPES:
            for name in ("notebook", "session"):
                if scope.kind is ScopeKind.COURSE:
                    yield Question(subject, "create", ResourceRef(name, ""), stated_course_id=scope.id)
                elif name != "session":
                    yield Question(subject, "create", ResourceRef(name, ""), stated_session_id=scope.id)


@examples(36)
@given(asked())
def test_every_answer_is_that_of_the_oracle(case: Asked) -> None:
    campus, checker, oracle = Campus(case.entities), case.checker, case.oracle
    for question in case.questions:
        trace = Trace()
        decision, expected = checker.check(campus, question, NOW, trace), oracle.answer(question, NOW)
        assert (decision.allowed, decision.reason) == expected[:2], question
        if trace.facts is not None:
            assert set(fact_names(trace.facts)) == expected.facts, question


@examples(24)
@given(asked())
def test_until_its_valid_until_every_answer_stays_that_of_the_oracle(case: Asked) -> None:
    campus, checker, oracle = Campus(case.entities), case.checker, case.oracle
    for question in case.questions[::7]:
        decision = checker.check(campus, question, NOW)
        for later in LATER:
            if decision.valid_until is not None and later >= decision.valid_until:
                break
            expected = oracle.answer(question, later)
            assert (decision.allowed, decision.reason) == expected[:2], (question, later)
