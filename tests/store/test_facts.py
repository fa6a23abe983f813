"""The SQL predicate of each fact says what its definition says, on both databases."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from authz.domain.context import facts_at, resource_context_of, scope_context_of
from authz.domain.entities import (
    DEFAULT_EDIT_WINDOW_US,
    Course,
    CourseState,
    Entity,
    Resource,
    Session,
    SessionState,
    Share,
    ShareLevel,
    Visibility,
)
from authz.domain.facts import (
    ALL_FACTS,
    ATTENDING,
    FACTS,
    FOR_AI_RESPONSE,
    PURPOSE_AI_RESPONSE,
    Fact,
    fact_names,
    share_facts,
)
from authz.domain.ids import Scope, course_scope, session_scope
from authz.store.engine import open_engine, read_transaction
from tests.store.directory import create, open_with, user, write

MAYA = user("maya")
COURSES = [
    Course(id="open", state=CourseState.ACTIVE, ai_enabled=True, edit_window_us=10),
    Course(id="kept", state=CourseState.ARCHIVED, edit_window_us=0),
]
SESSIONS = [
    Session(id="now", course_id="open", state=SessionState.LIVE, open_to_course=True),
    Session(id="over", course_id="kept", state=SessionState.CANCELLED),
    Session(id="alone", state=SessionState.ENDED),
]
SCOPES = [*(course_scope(c.id) for c in COURSES), *(session_scope(s.id) for s in SESSIONS)]
TIMES = [(None, None), (90, 110), (100, None), (None, 100)]
VARIANTS = [
    {"owner": MAYA, "published": True, "created_at": 95},
    {"owner": user("noor"), "locked": True, "ai_allowed": True, "created_at": 101},
    {"published": True, "ai_allowed": True, "created_at": 100 - DEFAULT_EDIT_WINDOW_US},
]
SHARES = [None, ShareLevel.VIEWER, ShareLevel.EDITOR]
SUBJECTS = [("", False, False), ("", True, False), (PURPOSE_AI_RESPONSE, False, True)]
"""The purpose, and whether the subject has a role in the course and in the session."""


def visibilities(scope: Scope) -> list[Visibility]:
    if scope.id == "alone":
        return [Visibility.PRIVATE, Visibility.SESSION]
    in_session = scope in [session_scope(s.id) for s in SESSIONS]
    return [Visibility.PRIVATE, Visibility.COURSE, *([Visibility.SESSION] if in_session else [])]


def cases() -> Iterator[tuple[Resource, ShareLevel | None]]:
    numbers = itertools.count()
    for scope in SCOPES:
        for visibility, (start, end), variant in itertools.product(visibilities(scope), TIMES, VARIANTS):
            number = next(numbers)
            resource = Resource(
                type="notebook",
                id=f"n{number}",
                scope=scope,
                visibility=visibility,
                available_from=start,
                available_until=end,
                **variant,  # type: ignore[arg-type]  # open in tests
            )
            yield resource, SHARES[number % len(SHARES)]


def scopes_of(resource: Resource) -> tuple[Course | None, Session | None]:
    courses, sessions = {c.id: c for c in COURSES}, {s.id: s for s in SESSIONS}
    session = sessions.get(resource.scope.id)
    course_id = resource.scope.id if session is None else session.course_id
    return courses.get(course_id or ""), session


def facts_of(fact: Fact) -> str:
    return (
        f"SELECT resources.id FROM resources"  # noqa: S608  the table of facts is the program's own
        " LEFT JOIN sessions ON resources.scope_kind = 'session' AND sessions.id = resources.scope_id"
        " LEFT JOIN courses ON courses.id = CASE resources.scope_kind"
        "   WHEN 'course' THEN resources.scope_id ELSE sessions.course_id END"
        f" WHERE {fact.sql}"
    )


@pytest.mark.parametrize(
    ("now", "created_ahead_us"), [(97, 2), (98, 2), (99, 0), (99, 1), (100, 0), (104, 0), (105, 0), (110, 0)]
)
def test_sql_and_definition_agree_on_every_fact(store_url: str, now: int, created_ahead_us: int) -> None:
    resources = list(cases())
    entities: list[Entity] = [*COURSES, *SESSIONS, *(resource for resource, _ in resources)]
    entities += [
        Share(resource=r.key, subject=MAYA, level=level, awaits_membership=True)
        for r, level in resources
        if level is not None
    ]
    store = open_with(store_url)
    try:
        write(store, *map(create, entities))
    finally:
        store.close()
    engine = open_engine(store_url)
    holding = set()
    with read_transaction(engine) as connection:
        for purpose, in_course, in_session in SUBJECTS:
            given = {
                "subject_type": "user",
                "subject_id": "maya",
                "now": now,
                "purpose": purpose,
                "in_course": in_course,
                "in_session": in_session,
                "created_ahead_us": created_ahead_us,
                "default_edit_window_us": DEFAULT_EDIT_WINDOW_US,
            }
            found = {
                fact.name: set(connection.execute(text(facts_of(fact)), given).scalars()) for fact in FACTS
            }
            for resource, level in resources:
                context = resource_context_of(resource, scope_context_of(*scopes_of(resource)), MAYA)
                mask, _ = facts_at(now, context, ALL_FACTS, created_ahead_us=created_ahead_us)
                mask |= share_facts(level)
                if context.scope.is_attended(in_course=in_course, in_session=in_session):
                    mask |= ATTENDING
                if purpose:
                    mask |= FOR_AI_RESPONSE
                by_sql = {name for name, ids in found.items() if resource.id in ids}
                assert by_sql == set(fact_names(mask)), (resource, level, purpose)
                holding |= by_sql
    engine.dispose()
    assert holding == {fact.name for fact in FACTS}


def test_a_fact_that_implies_another_never_holds_without_it() -> None:
    implying = {fact.name: fact.implies for fact in FACTS if fact.implies}
    assert implying == {"shared_edit": ("shared_view",)}
    for level in ShareLevel:
        names = fact_names(share_facts(level))
        assert all(set(implying.get(name, ())) <= set(names) for name in names)
