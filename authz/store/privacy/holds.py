"""Holds: the subjects that nobody may erase, and whose data a purge keeps."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from authz.domain.entities import Hold, Versioned
from authz.domain.errors import ErrorReason, FailedPreconditionError
from authz.domain.ids import Subject
from authz.store import tables
from authz.store.log.decision_leaves import release_batches
from authz.store.rows import ENTITY_ROWS
from authz.store.tables import has_subject

HOLDS = ENTITY_ROWS["hold"].table
_KEPT = tables.held_changes


def read_holds(connection: Connection) -> list[Versioned[Hold]]:
    """All holds, ordered by subject."""
    return ENTITY_ROWS["hold"].read(connection, select(HOLDS).order_by(*HOLDS.primary_key))


def hold_on(connection: Connection, subject: Subject) -> Versioned[Hold] | None:
    """The hold on a subject; None if it is not held."""
    wanted = select(HOLDS).where(has_subject(HOLDS, "subject", subject))
    return next(iter(ENTITY_ROWS["hold"].read(connection, wanted)), None)


def require_no_hold(connection: Connection, subject: Subject, consequence: str) -> None:
    """Raise `FailedPreconditionError` (SUBJECT_HELD) if a subject is held."""
    hold = hold_on(connection, subject)
    if hold is not None:
        raise FailedPreconditionError(
            ErrorReason.SUBJECT_HELD,
            f"{subject} is held, so {consequence}: {hold.entity.reason}; when that is over, release it with"
            f" `authz privacy release-hold {subject} --reason WHY`",
            subject=str(subject),
        )


def release_kept(connection: Connection, subject: Subject) -> None:
    """Let the next purge remove what it has kept for the hold on a subject."""
    theirs = has_subject(_KEPT, "subject", subject)
    connection.execute(update(_KEPT).where(theirs).values(subject_type=None, subject_id=None))
    release_batches(connection)
