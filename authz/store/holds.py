"""Holds: the subjects that nobody may erase, and whose data a purge keeps."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select, update

from authz.domain.erasures import Hold
from authz.domain.errors import ErrorReason, FailedPreconditionError
from authz.domain.ids import Subject
from authz.store import tables
from authz.store.decision_leaves import release_batches
from authz.store.rows import subject_of
from authz.store.tables import has_subject

_HOLDS, _KEPT = tables.holds, tables.held_changes


def read_holds(connection: Connection) -> list[Hold]:
    """All holds, ordered by subject."""
    rows = connection.execute(select(_HOLDS).order_by(_HOLDS.c.subject_type, _HOLDS.c.subject_id))
    return [Hold(subject_of(row), row.reason, row.actor, row.since) for row in rows]


def require_no_hold(connection: Connection, subject: Subject, consequence: str) -> None:
    """Raise `FailedPreconditionError` (SUBJECT_HELD) if a subject is held."""
    hold = connection.execute(select(_HOLDS).where(has_subject(_HOLDS, "subject", subject))).first()
    if hold is not None:
        raise FailedPreconditionError(
            ErrorReason.SUBJECT_HELD,
            f"{subject} is held, so {consequence}: {hold.reason}; when that is over, release it with"
            f" `authz privacy release-hold {subject}`",
            subject=str(subject),
        )


def end_hold(connection: Connection, subject: Subject) -> bool:
    """End the hold on a subject, so that the next purge removes what was kept for it; return whether there
    was one."""
    theirs = has_subject(_KEPT, "subject", subject)
    connection.execute(update(_KEPT).where(theirs).values(subject_type=None, subject_id=None))
    release_batches(connection)
    return bool(connection.execute(delete(_HOLDS).where(has_subject(_HOLDS, "subject", subject))).rowcount)
