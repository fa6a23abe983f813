"""The change log within one transaction: revisions taken in order, stored together at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, func, select, update

from authz.domain.instants import Instant
from authz.domain.mutations import LogPlace, Mutation
from authz.store import tables
from authz.store.batch import append_changes
from authz.store.bulk import insert_rows

_encoder = msgspec.json.Encoder()
_HEAD = select(tables.counter.c.revision)
_LOCKED_HEAD = _HEAD.with_for_update()
_COUNT = update(tables.counter).values(revision=bindparam("head"))
_NOTIFY = select(func.pg_notify(tables.REVISIONS_CHANNEL, bindparam("head")))


class Origin(msgspec.Struct, frozen=True):
    """Where a write comes from, as the log keeps it."""

    actor: str
    reason: str
    request_id: str


class ChangeLog:
    """The head of the log, held: until this transaction ends no other write gets past here.

    So revisions have no gaps and appear in the order in which they are committed.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._notifies = connection.dialect.name == "postgresql"
        self.head: int = connection.execute(_LOCKED_HEAD if self._notifies else _HEAD).scalar_one()
        self._revisions: list[dict[str, Any]] = []
        self._changes: list[dict[str, Any]] = []

    def append(self, effects: Sequence[tuple[Mutation, LogPlace]], origin: Origin, *, now: Instant) -> int:
        """Take the next revision for these effects and return it; without effects, the head stays."""
        if not effects:
            return self.head
        self.head += 1
        self._revisions.append(
            {
                "revision": self.head,
                "committed_at": now,
                "actor": origin.actor,
                "reason": origin.reason,
                "request_id": origin.request_id,
            }
        )
        self._changes += (
            {
                "revision": self.head,
                "position": position,
                "kind": mutation.kind.value,
                "operation": mutation.operation.value,
                "mutation": _encoder.encode(mutation).decode(),
                "course_id": place.course_id,
                "session_id": place.session_id,
            }
            for position, (mutation, place) in enumerate(effects)
        )
        return self.head

    def store(self) -> None:
        """Store all that was appended, and on PostgreSQL tell whoever listens the new head."""
        if not self._revisions:
            return
        self._connection.execute(_COUNT, {"head": self.head})
        insert_rows(self._connection, tables.revisions, self._revisions)
        append_changes(self._connection, tables.changes, self._changes)
        if self._notifies:
            # Delivered when, and only if, this transaction commits.
            self._connection.execute(_NOTIFY, {"head": str(self.head)})
