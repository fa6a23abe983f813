"""The fields that several files of an export have."""

from __future__ import annotations

import datetime as dt
from functools import lru_cache

from authz.domain.errors import InvalidArgumentError, malformed
from authz.domain.ids import Subject, SubjectType
from authz.domain.instants import Instant, parse_instant
from authz.importers.oneroster.manifest import Mode
from authz.importers.oneroster.rows import Roster, RowState
from authz.importers.report import RowFault, quoted
from authz.importers.tables import Record, parse_flag

STATUS_COLUMNS = ("status", "dateLastModified")
_STATES = {"active": RowState.ACTIVE, "tobedeleted": RowState.ENDED}


def parse_state(record: Record, mode: Mode) -> RowState:
    """Whether a record is active. Raises `InvalidArgumentError` for another status, and none in a delta."""
    status = record.get("status", "").strip().lower()
    if not status and mode is not Mode.DELTA:
        return RowState.ACTIVE
    if status not in _STATES:
        shown = quoted(record.get("status", ""))
        raise malformed("status", f"{shown} is neither `active` nor `tobedeleted`; use one of them")
    return _STATES[status]


def parse_modified(record: Record, mode: Mode, file: str, line: int, roster: Roster) -> Instant | None:
    """When a record was last modified. Only a delta must say so: elsewhere another text is noted."""
    text = record.get("dateLastModified", "").strip()
    if mode is Mode.DELTA or text:
        try:
            return parse_date(text, field="dateLastModified", zone=roster.options.zone)
        except InvalidArgumentError as error:
            if mode is Mode.DELTA:
                raise
            roster.notes.append(RowFault(file, line, f"{error.message}; ignored"))
    return None


@lru_cache(maxsize=4096)
def parse_date(text: str, *, field: str, zone: dt.tzinfo) -> Instant:
    """Read a date or a time. Raises `InvalidArgumentError` that names `field`."""
    try:
        return parse_instant(text.strip(), field=field, zone=zone)
    except InvalidArgumentError:
        problem = f"{quoted(text)} is not a date; write it like `2026-09-01`"
        raise malformed(field, problem) from None


def flag_of(record: Record, column: str, *, default: bool) -> bool:
    """The flag in a column; `default` if it is empty. Raises as `parse_flag`."""
    text = record.get(column, "")
    return parse_flag(text, field=column) if text.strip() else default


def parse_user(text: str, roster: Roster, *, field: str) -> Subject:
    """The subject of a user's sourcedId."""
    return Subject(SubjectType.USER, roster.ids.parse(text, field=field))
