"""Each fact: when it holds, when it does not, and when time alone changes it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.context import facts_at, resource_context_of, scope_context_of
from authz.domain.entities import (
    DEFAULT_EDIT_WINDOW_US,
    Course,
    CourseState,
    Resource,
    Session,
    SessionState,
    ShareLevel,
    Visibility,
)
from authz.domain.facts import (
    ALL_FACTS,
    ATTENDING,
    CREATED_AHEAD_US,
    FACTS,
    FACTS_BY_NAME,
    OWN,
    TIMED,
    fact_names,
    share_facts,
)
from authz.domain.ids import Subject, SubjectType, course_scope

MAYA = Subject(SubjectType.USER, "maya")
COURSE = Course(id="c", state=CourseState.ACTIVE)
SESSION = Session(id="s", course_id="c")
PUBLISHED = FACTS_BY_NAME["published"].bit
WITHIN_EDIT_WINDOW = FACTS_BY_NAME["within_edit_window"].bit
SOON = 10 + CREATED_AHEAD_US
"""What is created at 10, by a clock that is ahead as far as one may be."""


def holding(now: int = 0, **changes: Any) -> set[str]:
    """The names of the facts; arguments of a resource go into it, others are circumstances."""
    of_resource = {name: changes.pop(name) for name in list(changes) if name in Resource.__struct_fields__}
    resource = changes.get("resource") or Resource(
        type="notebook", id="n", scope=course_scope("c"), **of_resource
    )
    place = scope_context_of(changes.get("course", COURSE), changes.get("session"))
    facts, _ = facts_at(now, resource_context_of(resource, place, MAYA), ALL_FACTS)
    facts |= share_facts(changes.get("share"))
    if place.is_attended(
        in_course=changes.get("in_course", False), in_session=changes.get("in_session", False)
    ):
        facts |= ATTENDING
    return set(fact_names(facts))


AI_COURSE = Course(id="c", state=CourseState.ACTIVE, ai_enabled=True)
OPEN = Session(id="s", course_id="c", open_to_course=True)


@pytest.mark.parametrize(
    ("circumstances", "facts"),
    [
        ({}, set()),
        ({"owner": MAYA}, {"own"}),
        ({"owner": Subject(SubjectType.SERVICE, "maya")}, set()),
        ({"owner": Subject(SubjectType.USER, "Maya")}, set()),
        ({"share": ShareLevel.VIEWER}, {"shared_view"}),
        ({"share": ShareLevel.EDITOR}, {"shared_view", "shared_edit"}),
        ({"published": True}, {"published"}),
        ({"available_from": 0, "available_until": 9}, set()),
        ({"visibility": Visibility.COURSE}, {"course_visible"}),
        ({"visibility": Visibility.COURSE, "session": SESSION}, {"course_visible"}),
        ({"visibility": Visibility.SESSION, "session": SESSION}, {"session_visible"}),
        ({"visibility": Visibility.SESSION}, set()),
        ({"session": SESSION, "in_session": True}, {"attending"}),
        ({"session": SESSION, "in_course": True}, set()),
        ({"session": OPEN, "in_course": True}, {"attending"}),
        ({"session": OPEN}, set()),
        ({"in_course": True}, set()),
        ({"locked": True}, {"locked"}),
        ({"ai_allowed": True}, set()),
        ({"course": AI_COURSE}, set()),
        ({"course": AI_COURSE, "ai_allowed": True}, {"ai_enabled"}),
        ({"course": None, "ai_allowed": True}, set()),
        ({"course": Course(id="c", state=CourseState.ARCHIVED)}, {"course_archived"}),
        ({"course": Course(id="c", state=CourseState.CONCLUDED)}, set()),
        ({"session": Session(id="s", state=SessionState.LIVE)}, {"session_live"}),
        ({"session": Session(id="s", state=SessionState.ENDED)}, {"session_ended"}),
        ({"session": Session(id="s", state=SessionState.CANCELLED)}, {"session_ended"}),
        ({"session": Session(id="s", state=SessionState.SCHEDULED, ends_at=-1)}, set()),
    ],
)
def test_a_fact_holds_exactly_in_its_circumstances(circumstances: dict[str, Any], facts: set[str]) -> None:
    assert holding(**circumstances) == facts


@pytest.mark.parametrize(("now", "open_"), [(9, False), (10, True), (19, True), (20, False)])
def test_published_is_inside_the_window_only(now: int, open_: bool) -> None:
    facts = holding(now, published=True, available_from=10, available_until=20)
    assert ("published" in facts) is open_


@pytest.mark.parametrize(("now", "within"), [(9, False), (10, True), (SOON + 4, True), (SOON + 5, False)])
def test_the_edit_window_opens_at_creation_by_a_clock_ahead_and_shuts_when_it_has_passed(
    now: int, within: bool
) -> None:
    course = Course(id="c", state=CourseState.ACTIVE, edit_window_us=5)
    assert ("within_edit_window" in holding(now, created_at=SOON, course=course)) is within


def test_without_a_course_the_edit_window_is_the_default_one() -> None:
    assert "within_edit_window" in holding(DEFAULT_EDIT_WINDOW_US - 1, created_at=0, course=None)
    assert "within_edit_window" not in holding(DEFAULT_EDIT_WINDOW_US, created_at=0, course=None)


def test_what_has_no_time_of_creation_is_never_within_it() -> None:
    assert "within_edit_window" not in holding(0)


def test_a_window_of_no_length_is_never_open() -> None:
    course = Course(id="c", state=CourseState.ACTIVE, edit_window_us=0)
    for now in (9, 10):  # at 9 it was created by a clock ahead
        assert "within_edit_window" not in holding(now, created_at=10, course=course)


def test_facts_are_named_in_their_order_and_each_is_one_bit() -> None:
    assert list(fact_names(ALL_FACTS)) == [fact.name for fact in FACTS]
    assert all(fact.bit.bit_count() == 1 for fact in FACTS)
    assert fact_names(0) == ()


@given(st.integers(0, ALL_FACTS))
def test_what_is_asked_for_is_right_whatever_else_is_not(asked: int) -> None:
    resource = Resource(
        type="notebook",
        id="n",
        scope=course_scope("c"),
        owner=MAYA,
        visibility=Visibility.COURSE,
        published=True,
        created_at=0,
        locked=True,
        ai_allowed=True,
    )
    place = scope_context_of(AI_COURSE, None)
    item = resource_context_of(resource, place, MAYA)
    assert facts_at(0, item, asked)[0] & asked == facts_at(0, item, ALL_FACTS)[0] & asked


def changes_at(now: int, resource: Resource, course: Course, required: int) -> int | None:
    context = resource_context_of(resource, scope_context_of(course, None), MAYA)
    return facts_at(now, context, required)[1]


@pytest.mark.parametrize(
    ("now", "required", "change"),
    [
        (0, TIMED, 10),
        (0, PUBLISHED, 30),
        (10, WITHIN_EDIT_WINDOW, SOON + 10),
        (SOON + 10, WITHIN_EDIT_WINDOW, None),
        (0, OWN, None),
    ],
)
def test_a_change_counts_for_the_required_facts_only(now: int, required: int, change: int | None) -> None:
    resource = Resource(
        type="message",
        id="m",
        scope=course_scope("c"),
        published=True,
        available_from=30,
        created_at=SOON,
    )
    course = Course(id="c", state=CourseState.ACTIVE, edit_window_us=10)
    assert changes_at(now, resource, course, required) == change


def test_an_unpublished_resource_does_not_change_at_its_window() -> None:
    resource = Resource(type="material", id="m", scope=course_scope("c"), available_from=30)
    assert changes_at(0, resource, COURSE, PUBLISHED) is None


@st.composite
def timed_resources(draw: st.DrawFn) -> Resource:
    times = st.none() | st.integers(0, 20)
    return Resource(
        type="message",
        id="m",
        scope=course_scope("c"),
        published=draw(st.booleans()),
        available_from=draw(times),
        available_until=draw(times),
        created_at=draw(times | st.integers(CREATED_AHEAD_US, CREATED_AHEAD_US + 20)),
    )


@given(timed_resources(), st.integers(0, 8), st.integers(-6, 22))
def test_no_fact_changes_before_the_edge(resource: Resource, window_us: int, now: int) -> None:
    course = Course(id="c", state=CourseState.ACTIVE, edit_window_us=window_us)
    context = resource_context_of(resource, scope_context_of(course, None), MAYA)
    first, edge = facts_at(now, context, TIMED)
    end = 32 if edge is None else edge
    for later in (*range(now, min(end, now + 40)), *range(max(now, end - 40), end)):
        assert facts_at(later, context, TIMED)[0] == first
