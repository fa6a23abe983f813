"""Where a resource is, as far as a decision needs it."""

from __future__ import annotations

import msgspec

from authz.domain.entities import Course, CourseState, Session, SessionState
from authz.domain.facts import AI_ENABLED, COURSE_ARCHIVED, SESSION_ENDED, SESSION_LIVE, SESSION_VISIBLE
from authz.domain.ids import PLATFORM, Scope, course_scope, session_scope

_EVERY_FACT = (1 << 14) - 1


class Place(msgspec.Struct, frozen=True, eq=False):
    """A course, a session with its course if it has one, or the platform.

    `scopes` are all whose memberships count here, the platform first. `facts` are those that the place
    alone settles; `possible` masks off those that it rules out. `keys` are the scopes as the view that
    made the place writes them, if it does.
    """

    course: Course | None
    session: Session | None
    course_id: str | None
    session_id: str | None
    scopes: tuple[Scope, ...]
    facts: int
    possible: int
    keys: tuple[bytes, ...] = ()


def place_of(course: Course | None, session: Session | None, keys: tuple[bytes, ...] = ()) -> Place:
    """The place of a course and a session."""
    scopes = [PLATFORM]
    facts, possible = 0, _EVERY_FACT
    if course is not None:
        scopes.append(course_scope(course.id))
        if course.state is CourseState.ARCHIVED:
            facts |= COURSE_ARCHIVED
    if course is None or not course.ai_enabled:
        possible &= ~AI_ENABLED
    if session is None:
        possible &= ~SESSION_VISIBLE
    else:
        scopes.append(session_scope(session.id))
        if session.state is SessionState.LIVE:
            facts |= SESSION_LIVE
        elif session.state in (SessionState.ENDED, SessionState.CANCELLED):
            facts |= SESSION_ENDED
    course_id = None if course is None else course.id
    session_id = None if session is None else session.id
    return Place(course, session, course_id, session_id, tuple(scopes), facts, possible, keys)


def attends(place: Place, in_course: bool, in_session: bool) -> bool:
    """Whether roles in the place's session, or in its course when that is open to it, attend it."""
    session = place.session
    return session is not None and (in_session or (in_course and session.open_to_course))
