"""The rows of an export as values, and the roster that they make."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias

import msgspec

from authz.domain.entities import MembershipKey
from authz.domain.ids import Scope, Subject
from authz.domain.instants import MAX_INSTANT, MIN_INSTANT, Instant
from authz.importers.oneroster.manifest import ENROLLMENTS, Mode
from authz.importers.oneroster.sourced_ids import SourcedIds
from authz.importers.report import RowFault

SOURCE = "oneroster"
DEFAULT_ROLES: Mapping[str, str] = MappingProxyType(
    {"teacher": "teacher", "student": "student", "aide": "teaching_assistant"}
)
"""From OneRoster roles to roles of the policy. A `primary` teacher becomes an owner. Others are faults."""


class RowState(StrEnum):
    """What a row says of its record. FAULTY: it cannot be read, so that what it names is closed."""

    ACTIVE = "ACTIVE"
    ENDED = "ENDED"
    FAULTY = "FAULTY"


class ClassRow(msgspec.Struct, frozen=True, gc=False):
    """A class. `ends_at` is the latest end of its terms; `has_terms` says whether the export knows them."""

    id: str
    line: int
    state: RowState
    modified_at: Instant | None = None
    has_terms: bool = False
    ends_at: Instant | None = None


class UserRow(msgspec.Struct, frozen=True, gc=False):
    """A user. ENDED if deleted or disabled."""

    subject: Subject
    line: int
    state: RowState
    modified_at: Instant | None = None


class Enrollment(msgspec.Struct, frozen=True, gc=False):
    """An enrollment, whose `ref` is its sourcedId.

    An ACTIVE one has a subject, a scope and a role, another has those that could be read. `ends_with_term`:
    it states no end, and `ends_at` is that of its class's terms.
    """

    ref: str
    line: int
    state: RowState
    subject: Subject | None
    scope: Scope | None
    role: str
    modified_at: Instant | None = None
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    ends_with_term: bool = False

    @property
    def key(self) -> MembershipKey | None:
        """The membership that it names, if it names one in full."""
        if self.subject is None or self.scope is None or not self.role:
            return None
        return MembershipKey(self.subject, self.scope, self.role)


class ReadOptions(msgspec.Struct, frozen=True):
    """How an export is read: `roles` from lower-case roles of the source, `zone` of dates without one."""

    source: str = SOURCE
    roles: Mapping[str, str] = DEFAULT_ROLES
    zone: dt.tzinfo = dt.UTC


class Roster(msgspec.Struct, frozen=True):
    """All that an export says. Classes and users are by id, one row each."""

    options: ReadOptions
    modes: Mapping[str, Mode]
    ids: SourcedIds
    faults: list[RowFault]
    notes: list[RowFault]
    classes: dict[str, ClassRow] = {}
    users: dict[Subject, UserRow] = {}
    enrollments: list[Enrollment] = []

    def note(self, row: Enrollment, text: str) -> None:
        """Note something about an enrollment that is no fault."""
        self.notes.append(RowFault(ENROLLMENTS, row.line, text))


def length_of(starts_at: Instant | None, ends_at: Instant | None) -> tuple[Instant, Instant]:
    """Orders periods: the one that ends last is the greatest, of two that end together the longest."""
    end = MAX_INSTANT if ends_at is None else ends_at
    return end, -(MIN_INSTANT if starts_at is None else starts_at)


Row: TypeAlias = ClassRow | UserRow | Enrollment


def is_newer(row: Row, other: Row, *, otherwise: bool = False) -> bool:
    """Whether a row was modified later than another; `otherwise` where the dates say it of neither."""
    first, second = row.modified_at, other.modified_at
    return otherwise if first is None or second is None or first == second else first > second
