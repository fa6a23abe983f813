"""Ends holds, and with them what retention keeps for their sake."""

from __future__ import annotations

from sqlalchemy import Connection, delete

from authz.domain.ids import Subject
from authz.store import tables
from authz.store.compaction import release_held
from authz.store.decision_leaves import release_batches


def end_hold(connection: Connection, subject: Subject) -> bool:
    """End the hold on a subject; return whether there was one."""
    release_held(connection, subject)
    release_batches(connection)
    same = tables.has_subject(tables.holds, "subject", subject)
    return bool(connection.execute(delete(tables.holds).where(same)).rowcount)
