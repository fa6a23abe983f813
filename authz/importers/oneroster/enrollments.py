"""Reads `enrollments.csv`."""

from __future__ import annotations

import datetime as dt
import shlex
from collections.abc import Callable
from typing import TypeVar

import msgspec

from authz.domain.errors import InvalidArgumentError, malformed
from authz.domain.ids import course_scope
from authz.domain.instants import Instant
from authz.importers.oneroster.fields import flag_of, parse_date, parse_modified, parse_state, parse_user
from authz.importers.oneroster.manifest import ENROLLMENTS
from authz.importers.oneroster.references import Rows
from authz.importers.oneroster.rows import Enrollment, Roster, RowState
from authz.importers.report import RowFault, quoted
from authz.importers.tables import Record

T = TypeVar("T")

_TEACHER = "teacher"
_OWNER = "owner"


def read_enrollments(rows: Rows, roster: Roster) -> None:
    """Add the enrollments to the roster, in the order of the file."""
    reader = _EnrollmentReader(roster)
    for line, record in rows:
        if record:
            roster.enrollments.append(reader.read(line, record))
        else:
            roster.notes.append(RowFault(ENROLLMENTS, line, "is an empty row; skipped"))


class _EnrollmentReader:
    """Reads rows, and notes each spelling of a role only once."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._mode = roster.modes[ENROLLMENTS]
        self._noted: set[str] = set()

    def read(self, line: int, record: Record) -> Enrollment:
        """An enrollment, FAULTY if the row has a fault that matters.

        One that is to be deleted needs no more than its sourcedId, or else the membership that it names.
        """
        faults: list[InvalidArgumentError] = []

        def attempt(parse: Callable[[], T], default: T) -> T:
            try:
                return parse()
            except InvalidArgumentError as error:
                faults.append(error)
                return default

        roster, mode, zone = self._roster, self._mode, self._roster.options.zone
        found = Enrollment(
            ref=attempt(lambda: roster.ids.parse_reference(record["sourcedId"]), ""),
            line=line,
            state=attempt(lambda: parse_state(record, mode), RowState.FAULTY),
            subject=attempt(lambda: parse_user(record["userSourcedId"], roster, field="userSourcedId"), None),
            scope=attempt(
                lambda: course_scope(roster.ids.parse(record["classSourcedId"], field="classSourcedId")), None
            ),
            role=attempt(lambda: self._role(line, record), ""),
            modified_at=attempt(lambda: parse_modified(record, mode, ENROLLMENTS, line, roster), None),
            starts_at=attempt(lambda: _date(record, "beginDate", zone), None),
            ends_at=attempt(lambda: _date(record, "endDate", zone), None),
        )
        if not faults and found.state is RowState.ACTIVE:
            return self._in_effect(found, record)
        if found.state is RowState.ENDED and (found.ref or found.key is not None):
            return found
        roster.faults.append(RowFault(ENROLLMENTS, line, faults[0].message))
        return msgspec.structs.replace(found, state=RowState.FAULTY)

    def _in_effect(self, found: Enrollment, record: Record) -> Enrollment:
        """ENDED if the enrollment ends before it begins."""
        if found.starts_at is None or found.ends_at is None or found.starts_at < found.ends_at:
            return found
        text = f"never in effect: ends on {record['endDate']}, begins on {record['beginDate']}; skipped"
        self._roster.notes.append(RowFault(ENROLLMENTS, found.line, text))
        return msgspec.structs.replace(found, state=RowState.ENDED)

    def _role(self, line: int, record: Record) -> str:
        text = record["role"]
        external = text.strip().lower()
        role = self._roster.options.roles.get(external)
        if role is None:
            raise _unmapped(text, external)
        if text != external and text not in self._noted:
            self._noted.add(text)
            note = f"role {quoted(text)} is read as `{external}`, here and below"
            self._roster.notes.append(RowFault(ENROLLMENTS, line, note))
        # Only the source's role `teacher`: another role that is mapped to `teacher` must not become owner.
        is_teacher = external == role == _TEACHER
        return _OWNER if is_teacher and flag_of(record, "primary", default=False) else role


def _unmapped(text: str, external: str) -> InvalidArgumentError:
    if not external:
        return malformed("role", "is empty; correct it in the source")
    if not external.isprintable():
        return malformed(
            "role", f"{quoted(text)} has characters that cannot be printed; correct it in the source"
        )
    return malformed(
        "role", f"{quoted(text)} is not mapped; map it with `--role-map {shlex.quote(external)}=…`"
    )


def _date(record: Record, column: str, zone: dt.tzinfo) -> Instant | None:
    text = record.get(column, "")
    return parse_date(text, field=column, zone=zone) if text.strip() else None
