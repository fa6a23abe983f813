"""Where a row denies because a fact does not hold, the nearest grant is that it holds."""

from __future__ import annotations

import pytest

from authz.domain.decisions import Question, Reason
from authz.domain.entities import Course, CourseState, Entity, Membership, Resource
from authz.domain.ids import ResourceRef, course_scope
from authz.engine.check import Checker
from authz.engine.explain import explain
from tests.engine.campus import Campus
from tests.engine.generators import NOW, TEXT, compiled
from tests.store.directory import user

MAYA, HERE = user("maya"), course_scope("algebra")
CAMPUS: list[Entity] = [
    Course(id="algebra", state=CourseState.ACTIVE, ai_enabled=True),
    Membership(subject=MAYA, scope=HERE, role="student"),
    Resource(type="material", id="text", scope=HERE, owner=user("nadia"), published=True, ai_allowed=False),
    Resource(type="message", id="late", scope=HERE, owner=MAYA, locked=True),
]


@pytest.mark.parametrize(
    ("row", "ref", "told"),
    [
        ("material, read, !ai_enabled", ResourceRef("material", "text"), [["ai_enabled"]]),
        (
            "message, read, locked & !shared_view",
            ResourceRef("message", "late"),
            [["shared_view"], ["locked"]],
        ),
        ("message, read, !session_live", ResourceRef("message", "late"), []),
    ],
)
def test_a_deny_because_a_fact_does_not_hold_is_lifted_by_the_fact(
    row: str, ref: ResourceRef, told: list[list[str]]
) -> None:
    checker = Checker(compiled([*TEXT.splitlines(), f"p, *, *, {row}, deny"]))
    found = explain(checker, Campus(CAMPUS), Question(MAYA, "read", ref), NOW)
    assert found.decision.reason is Reason.EXPLICIT_DENY
    assert [[change.fact for change in changes] for changes in found.nearest_grants] == told
