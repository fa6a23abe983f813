"""What a decision needs to know of a resource and of the course and session that it is in."""

from __future__ import annotations

import msgspec

from authz.domain.entities import (
    DEFAULT_EDIT_WINDOW_US,
    Course,
    CourseState,
    PolicyActivation,
    Resource,
    Session,
)
from authz.domain.facts import OWN, TIMED_FACTS, Times, resource_facts, scope_facts, times_of
from authz.domain.ids import PLATFORM, Scope, ScopeKind, Subject, course_scope, session_scope
from authz.domain.instants import Instant


class ScopeState(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What a course and a session establish for everything in them.

    `course_state` is None without a course. `facts` hold for all of it; `possible` masks off the facts that
    are ruled out.
    """

    course_state: CourseState | None
    edit_window_us: int
    open_to_course: bool
    facts: int
    possible: int


class ScopeContext(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A course, a session with its course if it has one, or the platform (neither id is set).

    `course` and `session` are the records with these ids. `course_policy` says which version of the course's
    own policy is active; None without one.
    """

    state: ScopeState
    course_id: str | None = None
    session_id: str | None = None
    course: Course | None = None
    session: Session | None = None
    course_policy: PolicyActivation | None = None

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """The scopes whose memberships count here, the platform first."""
        scopes = [PLATFORM]
        if self.course_id is not None:
            scopes.append(course_scope(self.course_id))
        if self.session_id is not None:
            scopes.append(session_scope(self.session_id))
        return tuple(scopes)

    def scope_of_kind(self, kind: ScopeKind) -> Scope:
        """The one of `scopes` of a kind; an empty id where there is none."""
        if kind is ScopeKind.COURSE:
            return course_scope(self.course_id or "")
        return PLATFORM if kind is ScopeKind.PLATFORM else session_scope(self.session_id or "")

    def is_attended(self, *, in_course: bool, in_session: bool) -> bool:
        """Whether roles in the course and in the session, if any are held, attend the session."""
        return self.session_id is not None and (in_session or (in_course and self.state.open_to_course))


class ResourceContext(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A resource in its scope, as one subject finds it.

    `facts` are those that hold at any time; a timed fact is among them if it holds inside its window.
    `is_shared` is false if there is certainly no share of the resource, with anybody.
    """

    scope: ScopeContext
    facts: int
    times: Times = Times()
    is_shared: bool = False


def scope_state_of(course: Course | None, session: Session | None) -> ScopeState:
    """The state of a course and a session."""
    facts, possible = scope_facts(course, session)
    return ScopeState(
        course_state=None if course is None else course.state,
        edit_window_us=DEFAULT_EDIT_WINDOW_US if course is None else course.edit_window_us,
        open_to_course=session is not None and session.open_to_course,
        facts=facts,
        possible=possible,
    )


def scope_context_of(course: Course | None, session: Session | None) -> ScopeContext:
    """The context of a course and a session."""
    return ScopeContext(
        scope_state_of(course, session),
        None if course is None else course.id,
        None if session is None else session.id,
        course,
        session,
    )


SCOPE_MISSING = ResourceContext(scope_context_of(None, None), 0)
"""Stands for a registered resource whose scope is not registered: nothing can be said of it."""
DELETED = ResourceContext(scope_context_of(None, None), 0)
"""Stands for a resource that was registered and deleted: nobody may describe it."""


def resource_context_of(resource: Resource, scope: ScopeContext, subject: Subject) -> ResourceContext:
    """The context of a complete resource."""
    facts = resource_facts(resource) & scope.state.possible | scope.state.facts
    if resource.owner is not None and resource.owner == subject:
        facts |= OWN
    return ResourceContext(scope, facts, times_of(resource))


def facts_at(now: Instant, context: ResourceContext, required_facts: int) -> tuple[int, Instant | None]:
    """The facts that hold at `now`, and the earliest later instant at which time alone changes one of them.

    Of the timed facts only those in `required_facts` are computed; others may be wrong.
    """
    facts = context.facts
    next_change_at: Instant | None = None
    for bit, window in TIMED_FACTS:
        if required_facts & bit & facts:
            span = window(context.times, context.scope.state.edit_window_us)
            if span is None:
                facts &= ~bit
                continue
            start, end = span
            if start is not None and now < start:
                facts &= ~bit
                next_change_at = start if next_change_at is None or start < next_change_at else next_change_at
            elif end is not None:
                if now >= end:
                    facts &= ~bit
                elif next_change_at is None or end < next_change_at:
                    next_change_at = end
    return facts, next_change_at


def earliest_after(now: Instant, *instants: Instant | None) -> Instant | None:
    """The least of the instants that are later than `now`, or None."""
    later = [instant for instant in instants if instant is not None and instant > now]
    return min(later, default=None)
