"""The closed set of yes/no facts that a rule's condition may name, and how each is computed.

A fact that cannot be established is no: missing data never satisfies a condition.
"""

from __future__ import annotations

from enum import IntFlag

import msgspec

from authz.domain.entities import (
    DEFAULT_EDIT_WINDOW_US,
    Course,
    CourseState,
    Resource,
    Session,
    SessionState,
    Share,
    ShareLevel,
    Visibility,
)
from authz.domain.ids import Subject
from authz.domain.instants import Instant
from authz.domain.standing import earliest_after

PURPOSE_AI_RESPONSE = "ai_response"
"""The one purpose beside plain use (the empty string) that the service knows."""


class Fact(IntFlag):
    """One bit each. The lower-case names are what a policy row says."""

    OWN = 1
    SHARED_VIEW = 2
    SHARED_EDIT = 4
    PUBLISHED = 8
    COURSE_VISIBLE = 16
    SESSION_VISIBLE = 32
    ATTENDING = 64
    WITHIN_EDIT_WINDOW = 128
    LOCKED = 256
    AI_ENABLED = 512
    FOR_AI_RESPONSE = 1024
    COURSE_ARCHIVED = 2048
    SESSION_LIVE = 4096
    SESSION_ENDED = 8192


FACT_NAMES: dict[str, Fact] = {(fact.name or "").lower(): fact for fact in Fact}
"""Every fact by the name that policies use."""


def fact_names(mask: int) -> tuple[str, ...]:
    """The names of the facts in a mask, in the order of `Fact`."""
    return tuple(name for name, fact in FACT_NAMES.items() if mask & fact)


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """What facts are computed from: one subject, one resource, and what surrounds them.

    `course` and `session` are the resource's own. `has_role_in_session` and `has_role_in_course`
    say whether the subject has a role there now.
    """

    subject: Subject
    resource: Resource
    course: Course | None
    session: Session | None
    share: Share | None
    has_role_in_session: bool
    has_role_in_course: bool
    purpose: str


def facts_at(now: Instant, c: Circumstances) -> Fact:
    """All facts that hold at `now`."""
    facts = _facts_of_resource(now, c.resource, c.course)
    if c.resource.visibility is Visibility.SESSION and c.session is not None:
        facts |= Fact.SESSION_VISIBLE
    if c.resource.owner is not None and c.resource.owner == c.subject:
        facts |= Fact.OWN
    if c.share is not None:
        facts |= Fact.SHARED_VIEW
        if c.share.level is ShareLevel.EDITOR:
            facts |= Fact.SHARED_EDIT
    if c.course is not None:
        if c.course.ai_enabled and c.resource.ai_allowed:
            facts |= Fact.AI_ENABLED
        if c.course.state is CourseState.ARCHIVED:
            facts |= Fact.COURSE_ARCHIVED
    if c.session is not None:
        facts |= _facts_of_session(c.session, c)
    if c.purpose == PURPOSE_AI_RESPONSE:
        facts |= Fact.FOR_AI_RESPONSE
    return facts


def _facts_of_resource(now: Instant, resource: Resource, course: Course | None) -> Fact:
    facts = Fact(0)
    opened = resource.available_from is None or resource.available_from <= now
    closed = resource.available_until is not None and now >= resource.available_until
    if resource.published and opened and not closed:
        facts |= Fact.PUBLISHED
    if resource.visibility is Visibility.COURSE:
        facts |= Fact.COURSE_VISIBLE
    if resource.locked:
        facts |= Fact.LOCKED
    if resource.created_at is not None and resource.created_at <= now < _edit_until(resource, course):
        facts |= Fact.WITHIN_EDIT_WINDOW
    return facts


def _facts_of_session(session: Session, c: Circumstances) -> Fact:
    facts = Fact(0)
    if c.has_role_in_session or (session.open_to_course and c.has_role_in_course):
        facts |= Fact.ATTENDING
    if session.state is SessionState.LIVE:
        facts |= Fact.SESSION_LIVE
    elif session.state in (SessionState.ENDED, SessionState.CANCELLED):
        facts |= Fact.SESSION_ENDED
    return facts


def _edit_until(resource: Resource, course: Course | None) -> Instant:
    window = DEFAULT_EDIT_WINDOW_US if course is None else course.edit_window_us
    return (resource.created_at or 0) + window


def fact_edge(now: Instant, resource: Resource, course: Course | None, asked: int) -> Instant | None:
    """The earliest later instant at which time alone changes one of the facts in the mask `asked`."""
    edge: Instant | None = None
    if asked & Fact.PUBLISHED and resource.published:
        edge = earliest_after(now, resource.available_from, resource.available_until)
    if asked & Fact.WITHIN_EDIT_WINDOW and resource.created_at is not None:
        edge = earliest_after(now, edge, resource.created_at, _edit_until(resource, course))
    return edge
