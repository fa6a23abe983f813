"""Reads `users.csv`: who is deleted or disabled. No other column is read, and no password."""

from __future__ import annotations

from authz.domain.errors import InvalidArgumentError
from authz.importers.oneroster.classes import Rows
from authz.importers.oneroster.fields import parse_flag, parse_modified, parse_state, parse_user
from authz.importers.oneroster.manifest import USERS
from authz.importers.oneroster.rows import Roster, RowState, UserRow
from authz.importers.report import RowFault
from authz.importers.tables import Record


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
        if other is None or _wins(row, other):
            roster.users[row.subject] = row


def _user(line: int, record: Record, roster: Roster) -> UserRow:
    """Raises `InvalidArgumentError` if the row names nobody; another fault makes it FAULTY."""
    subject = parse_user(record["sourcedId"], roster, field="sourcedId")
    mode = roster.modes[USERS]
    modified_at = None
    try:
        state = parse_state(record, mode)
        if state is RowState.ACTIVE and not parse_flag(record, "enabledUser", default=True):
            state = RowState.ENDED
        modified_at = parse_modified(record, mode, USERS, line, roster)
    except InvalidArgumentError as error:
        roster.faults.append(RowFault(USERS, line, error.message))
        state = RowState.FAULTY
    return UserRow(subject, line, state, modified_at)


def _wins(row: UserRow, other: UserRow) -> bool:
    if row.modified_at is not None and other.modified_at is not None and row.modified_at != other.modified_at:
        return row.modified_at > other.modified_at
    return row.state is not RowState.ACTIVE
