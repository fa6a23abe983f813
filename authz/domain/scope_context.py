"""Where a resource is, as far as a decision needs it."""

from __future__ import annotations

import msgspec

from authz.domain.entities import DEFAULT_EDIT_WINDOW_US, Course, CourseState, Session, SessionState
from authz.domain.facts import AI_ENABLED, COURSE_ARCHIVED, SESSION_ENDED, SESSION_LIVE, SESSION_VISIBLE
from authz.domain.ids import PLATFORM, Scope, course_scope, session_scope

_EVERY_FACT = (1 << 14) - 1


class ScopeState(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What a course and a session settle for all that is in them; alike for all that are in one state.

    `course_state` is None where there is no course. `facts` are those that hold; `possible` masks off those
    that are ruled out.
    """

    course_state: CourseState | None
    edit_window_us: int
    open_to_course: bool
    facts: int
    possible: int


class ScopeContext(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A course, a session with its course if it has one, or the platform.

    `course_key` and `session_key` are its scopes as the view that made it writes them, if it does.
    """

    setting: ScopeState
    course_id: str | None = None
    session_id: str | None = None
    course_key: bytes = b""
    session_key: bytes = b""

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """All whose memberships count here, the platform first."""
        scopes = [PLATFORM]
        if self.course_id is not None:
            scopes.append(course_scope(self.course_id))
        if self.session_id is not None:
            scopes.append(session_scope(self.session_id))
        return tuple(scopes)


def scope_state_of(course: Course | None, session: Session | None) -> ScopeState:
    """The setting of a course and a session."""
    facts, possible = 0, _EVERY_FACT
    if course is not None and course.state is CourseState.ARCHIVED:
        facts |= COURSE_ARCHIVED
    if course is None or not course.ai_enabled:
        possible &= ~AI_ENABLED
    if session is None:
        possible &= ~SESSION_VISIBLE
    elif session.state is SessionState.LIVE:
        facts |= SESSION_LIVE
    elif session.state in (SessionState.ENDED, SessionState.CANCELLED):
        facts |= SESSION_ENDED
    return ScopeState(
        course_state=None if course is None else course.state,
        edit_window_us=DEFAULT_EDIT_WINDOW_US if course is None else course.edit_window_us,
        open_to_course=session is not None and session.open_to_course,
        facts=facts,
        possible=possible,
    )


def scope_context_of(course: Course | None, session: Session | None) -> ScopeContext:
    """The place of a course and a session."""
    return ScopeContext(
        scope_state_of(course, session),
        None if course is None else course.id,
        None if session is None else session.id,
    )


def attends(place: ScopeContext, in_course: bool, in_session: bool) -> bool:
    """Whether roles in the place's session, or in its course when that is open to it, attend it."""
    return place.session_id is not None and (in_session or (in_course and place.setting.open_to_course))
