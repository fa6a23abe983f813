"""Every cell of the default policy once more, asked of a campus where the facts are made true."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.domain.decisions import Question
from authz.domain.entities import (
    Course,
    CourseState,
    Entity,
    Membership,
    Resource,
    Session,
    SessionState,
    Share,
    ShareLevel,
    Visibility,
)
from authz.domain.ids import ResourceRef, ScopeKind, Subject, SubjectType, course_scope, session_scope
from authz.engine.check import Checker
from tests.engine.campus import Campus
from tests.policies import POLICY

CHECKER = Checker(POLICY)
MATRIX = tomllib.loads((Path(__file__).parent.parent / "cases/matrix.toml").read_text())
CELLS = [
    (row, role, cell)
    for row, cells in MATRIX["rows"].items()
    for role, cell in zip(MATRIX["columns"], cells, strict=True)
]
NOW = 1_000
MAYA = Subject(SubjectType.USER, "maya")
COURSE, SESSION = "algebra", "monday"


def alternatives(cell: str) -> list[frozenset[str]]:
    """The sets of facts of which one must hold: none at all for `-`, the empty one for `yes`."""
    if cell == "-":
        return []
    if cell == "yes":
        return [frozenset()]
    return [frozenset(fact.strip() for fact in part.split("&")) for part in cell.split(";")]


def situations(cell: str, kind: ScopeKind) -> Iterator[frozenset[str]]:
    """Every combination of the facts that the cell names, as far as a campus can have it."""
    named = sorted(frozenset[str]().union(*alternatives(cell)))
    for flags in itertools.product((False, True), repeat=len(named)):
        facts = frozenset(itertools.compress(named, flags))
        both = facts >= {"course_visible", "session_visible"}
        absent = kind is ScopeKind.SESSION and "attending" in named and "attending" not in facts
        if not both and not absent:
            yield facts


def campus(role: str, kind: ScopeKind, ref: ResourceRef, facts: frozenset[str]) -> Campus:
    """One course with one session and one resource in it, on which exactly these facts hold."""
    visibility = Visibility.PRIVATE
    if "course_visible" in facts:
        visibility = Visibility.COURSE
    elif "session_visible" in facts:
        visibility = Visibility.SESSION
    entities: list[Entity] = [
        Course(id=COURSE, state=CourseState.ACTIVE, ai_enabled="ai_enabled" in facts, edit_window_us=10),
        Session(
            id=SESSION,
            course_id=COURSE,
            state=SessionState.LIVE,
            open_to_course="attending" in facts,
        ),
        Membership(
            subject=MAYA,
            scope=session_scope(SESSION) if kind is ScopeKind.SESSION else course_scope(COURSE),
            role=role,
        ),
        Resource(
            type=ref.type,
            id=ref.id,
            scope=session_scope(SESSION),
            owner=MAYA if "own" in facts else Subject(SubjectType.USER, "noor"),
            visibility=visibility,
            published="published" in facts,
            created_at=NOW - (1 if "within_edit_window" in facts else 10),
            ai_allowed="ai_enabled" in facts,
        ),
    ]
    if facts & {"shared_view", "shared_edit"}:
        level = ShareLevel.EDITOR if "shared_edit" in facts else ShareLevel.VIEWER
        entities.append(Share(resource=ref, subject=MAYA, level=level))
    return Campus(entities)


def question(type_name: str, action: str, facts: frozenset[str]) -> tuple[Question, ResourceRef]:
    """The question about that resource, course or session, and the resource to register."""
    ref = ResourceRef(type_name, {"course": COURSE, "session": SESSION}.get(type_name, "it"))
    creating = action == "create"
    return Question(
        subject=MAYA,
        action=action,
        resource=ResourceRef(type_name, "") if creating else ref,
        stated_course_id=COURSE if creating and type_name != "course" else None,
        stated_session_id=SESSION if creating and type_name not in ("course", "session") else None,
        purpose="ai_response" if "for_ai_response" in facts else "",
    ), ref


@pytest.mark.parametrize(("row", "role", "cell"), CELLS)
def test_a_cell_allows_on_a_campus_exactly_where_one_of_its_alternatives_holds(
    row: str, role: str, cell: str
) -> None:
    type_name, action = row.split()
    kind = POLICY.vocabulary.roles[role].scope_kind
    for facts in situations(cell, kind):
        asked, ref = question(type_name, action, facts)
        decision = CHECKER.check(campus(role, kind, ref, facts), asked, NOW)
        expected = any(needed <= facts for needed in alternatives(cell))
        assert decision.allowed is expected, (sorted(facts), decision)


@pytest.mark.parametrize(("row", "role", "cell"), CELLS)
def test_no_cell_lets_in_whose_membership_is_of_another_course(row: str, role: str, cell: str) -> None:
    type_name, action = row.split()
    kind = POLICY.vocabulary.roles[role].scope_kind
    for facts in situations(cell, kind):
        asked, ref = question(type_name, action, facts)
        here = campus(role, kind, ref, facts)
        elsewhere = Membership(
            subject=MAYA,
            scope=session_scope("tuesday") if kind is ScopeKind.SESSION else course_scope("poetry"),
            role=role,
        )
        moved = [elsewhere if isinstance(entity, Membership) else entity for entity in here.entities]
        assert not CHECKER.check(Campus(moved), asked, NOW).allowed, sorted(facts)
