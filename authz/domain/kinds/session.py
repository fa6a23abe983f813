"""A session: its key, states, filter and rules."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from authz.domain.ids import Scope, ScopeKind, course_scope, session_scope
from authz.domain.instants import Instant
from authz.domain.kinds.course import IN_COURSE, CourseKey
from authz.domain.kinds.fields import Id, validate_span
from authz.domain.kinds.kind import Container, Filter, Kind, RecordKey
from authz.domain.vocabulary import Vocabulary


class SessionState(StrEnum):
    """Where a session is in its life."""

    SCHEDULED = "SCHEDULED"
    LIVE = "LIVE"
    ENDED = "ENDED"
    CANCELLED = "CANCELLED"


class SessionKey(RecordKey, frozen=True, gc=False, tag="session_key"):
    """Identifies a session."""

    id: Id

    def __str__(self) -> str:
        return f"session:{self.id}"


class Session(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="session"):
    """A live meeting, of a course or standing alone. Its course never changes."""

    id: Id
    course_id: Id | None = None
    state: SessionState = SessionState.SCHEDULED
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    open_to_course: bool = False

    @property
    def key(self) -> SessionKey:
        """Its identity."""
        return SessionKey(self.id)


class SessionFilter(Filter[Session], frozen=True, kw_only=True):
    """Sessions by id, course, state."""

    ids: tuple[Id, ...] = ()
    course_id: Id | None = None
    states: tuple[SessionState, ...] = ()


def _validate(session: Session, _: Vocabulary) -> None:
    validate_span(session.starts_at, session.ends_at, names=("starts_at", "ends_at"))


def _key_of_scope(scope: Scope) -> CourseKey | SessionKey | None:
    if scope.kind is ScopeKind.COURSE:
        return CourseKey(scope.id)
    return None if scope.kind is ScopeKind.PLATFORM else SessionKey(scope.id)


def _scope_of_key(key: CourseKey | SessionKey) -> Scope:
    return course_scope(key.id) if isinstance(key, CourseKey) else session_scope(key.id)


SESSION = Kind(
    Session,
    SessionKey,
    SessionFilter,
    key_order=("id",),
    container=IN_COURSE,
    scope=ScopeKind.SESSION,
    lookups=("course_id",),
    rule=_validate,
)

IN_SCOPE = Container("scope", kinds=("course", "session"), key_of=_key_of_scope, value_of=_scope_of_key)
"""The container of what belongs to a scope; the platform is no record."""
