"""A course: its key, states, filter and rules."""

from __future__ import annotations

from enum import StrEnum
from operator import attrgetter

import msgspec

from authz.domain.errors import malformed
from authz.domain.ids import ScopeKind
from authz.domain.instants import DAY_US, US_PER_S
from authz.domain.kinds.fields import DurationUs, Id
from authz.domain.kinds.kind import Container, Filter, Kind, RecordKey
from authz.domain.vocabulary import Vocabulary

DEFAULT_EDIT_WINDOW_US = 15 * 60 * US_PER_S
MAX_EDIT_WINDOW_US = 366 * DAY_US


class CourseState(StrEnum):
    """Where a course is in its life."""

    DRAFT = "DRAFT"
    ACTIVE = "ACTIVE"
    CONCLUDED = "CONCLUDED"
    ARCHIVED = "ARCHIVED"


class CourseKey(RecordKey, frozen=True, gc=False, tag="course_key"):
    """Identifies a course."""

    id: Id

    def __str__(self) -> str:
        return f"course:{self.id}"


class Course(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="course"):
    """A course."""

    id: Id
    state: CourseState = CourseState.DRAFT
    ai_enabled: bool = False
    edit_window_us: DurationUs = DEFAULT_EDIT_WINDOW_US

    @property
    def key(self) -> CourseKey:
        """Its identity."""
        return CourseKey(self.id)


class CourseFilter(Filter[Course], frozen=True, kw_only=True):
    """Courses by id, state."""

    ids: tuple[Id, ...] = ()
    states: tuple[CourseState, ...] = ()


def _validate(course: Course, _: Vocabulary) -> None:
    if not 0 <= course.edit_window_us <= MAX_EDIT_WINDOW_US:
        raise malformed("edit_window", "is out of range; it must be 0 to 366 days")


COURSE = Kind(Course, CourseKey, CourseFilter, key_order=("id",), scope=ScopeKind.COURSE, rule=_validate)

IN_COURSE = Container("course_id", kinds=("course",), key_of=CourseKey, value_of=attrgetter("id"))
"""The container of what belongs to one course by `course_id`."""
