"""Reads what enrollments refer to: `academicSessions.csv`, `classes.csv` and `users.csv`.

Of users, only who is deleted or disabled is read: no other column, and no password.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from authz.domain.errors import InvalidArgumentError
from authz.domain.instants import Instant
from authz.importers.oneroster.fields import flag_of, parse_date, parse_modified, parse_state, parse_user
from authz.importers.oneroster.manifest import ACADEMIC_SESSIONS, CLASSES, USERS, Mode
from authz.importers.oneroster.rows import ClassRow, Roster, RowState, UserRow, is_newer
from authz.importers.report import RowFault, quoted
from authz.importers.tables import Record

Rows = Iterable[tuple[int, Record]]
Terms = Mapping[str, Instant | None]


def read_terms(rows: Rows, roster: Roster) -> Terms:
    """The end of each academic session, by sourcedId, None if deleted. An end is exclusive, at midnight."""
    mode, zone = roster.modes[ACADEMIC_SESSIONS], roster.options.zone
    ends: dict[str, Instant | None] = {}
    for line, record in rows:
        if not record:
            continue
        try:
            # First, so that a session with another fault still ends what it ends.
            end = parse_date(record["endDate"], field="endDate", zone=zone)
            ends[record["sourcedId"]] = end
            if parse_state(record, mode) is RowState.ENDED:
                ends[record["sourcedId"]] = None
        except InvalidArgumentError as error:
            roster.faults.append(RowFault(ACADEMIC_SESSIONS, line, error.message))
    return ends


def read_classes(rows: Rows, terms: Terms, roster: Roster) -> None:
    """Add the classes to the roster, one row each. The newest wins where dates say so, else an active one."""
    for line, record in rows:
        if not record:
            roster.notes.append(RowFault(CLASSES, line, "is an empty row; skipped"))
            continue
        try:
            class_id = roster.ids.parse(record["sourcedId"], field="sourcedId")
        except InvalidArgumentError as error:
            roster.faults.append(RowFault(CLASSES, line, error.message))
            continue
        row = _class(class_id, line, record, terms, roster)
        other = roster.classes.get(class_id)
        if other is not None:
            is_better = row.state is RowState.ACTIVE is not other.state
            row, left = (row, other) if is_newer(row, other, otherwise=is_better) else (other, row)
            text = f"class {quoted(record['sourcedId'])} is also on line {row.line}, which counts; skipped"
            roster.notes.append(RowFault(CLASSES, left.line, text))
        roster.classes[class_id] = row


def _class(class_id: str, line: int, record: Record, terms: Terms, roster: Roster) -> ClassRow:
    mode = roster.modes[CLASSES]
    modified_at = None
    try:
        modified_at = parse_modified(record, mode, CLASSES, line, roster)
        state = parse_state(record, mode)
    except InvalidArgumentError as error:
        roster.faults.append(RowFault(CLASSES, line, error.message))
        state = RowState.FAULTY
    named = [each.strip() for each in record.get("termSourcedIds", "").split(",") if each.strip()]
    unknown = [each for each in named if each not in terms]
    # Without the file, each class would be noted.
    if unknown and state is RowState.ACTIVE and roster.modes[ACADEMIC_SESSIONS] is not Mode.ABSENT:
        text = f"term {quoted(unknown[0])} is not in {ACADEMIC_SESSIONS}: its end is not known"
        roster.notes.append(RowFault(CLASSES, line, text))
    ends = [end for each in named if (end := terms.get(each)) is not None]
    has_terms = "termSourcedIds" in record and not unknown and (bool(ends) or not named)
    return ClassRow(
        class_id, line, state, modified_at, has_terms, max(ends, default=None) if has_terms else None
    )


def read_users(rows: Rows, roster: Roster) -> None:
    """Add the users to the roster, one row each. The newest wins where dates say so, else one that ends."""
    for line, record in rows:
        if not record:
            continue
        try:
            row = _user(line, record, roster)
        except InvalidArgumentError as error:
            roster.faults.append(RowFault(USERS, line, error.message))
            continue
        other = roster.users.get(row.subject)
        if other is None or is_newer(row, other, otherwise=row.state is not RowState.ACTIVE):
            roster.users[row.subject] = row


def _user(line: int, record: Record, roster: Roster) -> UserRow:
    """Raises `InvalidArgumentError` if the row names nobody; another fault makes it FAULTY."""
    subject = parse_user(record["sourcedId"], roster, field="sourcedId")
    mode = roster.modes[USERS]
    modified_at = None
    try:
        state = parse_state(record, mode)
        if state is RowState.ACTIVE and not flag_of(record, "enabledUser", default=True):
            state = RowState.ENDED
        modified_at = parse_modified(record, mode, USERS, line, roster)
    except InvalidArgumentError as error:
        roster.faults.append(RowFault(USERS, line, error.message))
        state = RowState.FAULTY
    return UserRow(subject, line, state, modified_at)
