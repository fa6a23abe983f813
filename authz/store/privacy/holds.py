"""Holds and restrictions: the subjects that nobody may erase, and whose data a purge keeps."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, select, true, union_all, update

from authz.domain.entities import Hold, Versioned
from authz.domain.erasures import RestrictedSubject
from authz.domain.errors import ErrorReason, FailedPreconditionError
from authz.domain.ids import Subject
from authz.store import tables
from authz.store.log.decision_leaves import release_batches
from authz.store.rows import ENTITY_ROWS, subject_of
from authz.store.tables import has_subject

HOLDS = ENTITY_ROWS["hold"].table
_RESTRICTIONS = ENTITY_ROWS["restriction"].table
_REVISIONS, _KEPT = tables.revisions, tables.held_changes
HELD = union_all(
    *(select(table.c.subject_type, table.c.subject_id) for table in (HOLDS, _RESTRICTIONS))
).subquery("held")
"""The subjects that have a hold or a restriction; one that has both is there twice."""


def read_holds(connection: Connection) -> list[Versioned[Hold]]:
    """All holds, ordered by subject."""
    return ENTITY_ROWS["hold"].read(connection, select(HOLDS).order_by(*HOLDS.primary_key))


def hold_on(connection: Connection, subject: Subject) -> Versioned[Hold] | None:
    """The hold on a subject; None if it is not held."""
    return next(iter(ENTITY_ROWS["hold"].about(connection, "subject", subject, 1)), None)


def restriction_of(connection: Connection, subject: Subject) -> RestrictedSubject | None:
    """The restriction of a subject; None if it is not restricted."""
    return next(iter(_restrictions(connection, has_subject(_RESTRICTIONS, "subject", subject))), None)


def read_restrictions(connection: Connection) -> list[RestrictedSubject]:
    """All restrictions, ordered by subject."""
    return _restrictions(connection, true())


def held_subjects(connection: Connection) -> set[Subject]:
    """All who have a hold or a restriction."""
    return {subject_of(row) for row in connection.execute(select(HELD))}


def require_no_hold(connection: Connection, subject: Subject, consequence: str) -> None:
    """Raise `FailedPreconditionError` (SUBJECT_HELD) if a subject has a hold or a restriction."""
    hold, restricted = hold_on(connection, subject), restriction_of(connection, subject)
    if hold is not None:
        state, reason, end = (
            "held",
            hold.entity.reason,
            f"release it with `authz privacy release-hold {subject}",
        )
    elif restricted is not None:
        state, reason = "restricted", restricted.reason
        end = f"lift it with `authz privacy lift-restriction {subject}"
    else:
        return
    raise FailedPreconditionError(
        ErrorReason.SUBJECT_HELD,
        f"{subject} is {state}, so {consequence}: {reason}; when that is over, {end} --reason WHY`",
        subject=str(subject),
    )


def release_kept(connection: Connection, subject: Subject) -> None:
    """Let the next purge look again at what was kept for the hold on a subject, or for its restriction."""
    theirs = has_subject(_KEPT, "subject", subject)
    connection.execute(update(_KEPT).where(theirs).values(subject_type=None, subject_id=None))
    release_batches(connection, subject)


def _restrictions(connection: Connection, wanted: ColumnElement[bool]) -> list[RestrictedSubject]:
    found = select(*_RESTRICTIONS.c, _REVISIONS.c.reason, _REVISIONS.c.actor)
    found = found.outerjoin(_REVISIONS, _REVISIONS.c.revision == _RESTRICTIONS.c.revision).where(wanted)
    rows = connection.execute(found.order_by(*_RESTRICTIONS.primary_key)).all()
    stored = ENTITY_ROWS["restriction"].versioned([row[:-2] for row in rows])
    return [
        RestrictedSubject(each, row.reason or "", row.actor or "")
        for each, row in zip(stored, rows, strict=True)
    ]
