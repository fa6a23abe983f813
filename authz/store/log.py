"""The change log within one transaction: revisions taken in order, stored together at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, case, func, select, update

from authz.domain.instants import Instant
from authz.domain.mutations import Change, Committed, LogPlace, Mutation
from authz.store import tables
from authz.store.batch import append_changes
from authz.store.bulk import insert_rows

_encoder = msgspec.json.Encoder()
_HEAD = select(
    tables.counter.c.revision,
    tables.counter.c.database_id,
    case((tables.counter.c.revision == 0, 0), else_=tables.revisions.c.committed_at).label("committed_at"),
).outerjoin_from(tables.counter, tables.revisions, tables.revisions.c.revision == tables.counter.c.revision)
_LOCKED_HEAD = _HEAD.with_for_update(of=tables.counter)
"""Where this had to wait for another write, PostgreSQL gives what that one committed, but NULL for when."""
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
        self._held = connection.execute(_LOCKED_HEAD if self._notifies else _HEAD).one()
        self.head: int = self._held.revision
        self._changes: list[Change] = []

    def append(self, effects: Sequence[tuple[Mutation, LogPlace]], origin: Origin, *, now: Instant) -> int:
        """Take the next revision for these effects and return it; without effects, the head stays."""
        if not effects:
            return self.head
        self.head += 1
        self._changes.append(
            Change(
                revision=self.head,
                committed_at=now,
                actor=origin.actor,
                reason=origin.reason,
                request_id=origin.request_id,
                mutations=tuple(mutation for mutation, _ in effects),
                places=tuple(place for _, place in effects),
            )
        )
        return self.head

    def store(self) -> None:
        """Store all that was appended, and on PostgreSQL tell whoever listens the new head."""
        if not self._changes:
            return
        self._connection.execute(_COUNT, {"head": self.head})
        insert_rows(self._connection, tables.revisions, map(_revision_row, self._changes))
        append_changes(
            self._connection, tables.changes, [row for each in self._changes for row in _change_rows(each)]
        )
        if self._notifies:
            # Delivered when, and only if, this transaction commits.
            self._connection.execute(_NOTIFY, {"head": str(self.head)})

    def committed(self) -> Committed:
        """All that was appended, for when the transaction has been committed."""
        held = self._held
        return Committed(held.database_id, held.revision, held.committed_at, tuple(self._changes))


def _revision_row(change: Change) -> dict[str, Any]:
    return {
        "revision": change.revision,
        "committed_at": change.committed_at,
        "actor": change.actor,
        "reason": change.reason,
        "request_id": change.request_id,
    }


def _change_rows(change: Change) -> Iterator[dict[str, Any]]:
    for position, (mutation, place) in enumerate(zip(change.mutations, change.places, strict=True)):
        yield {
            "revision": change.revision,
            "position": position,
            "kind": mutation.kind.value,
            "operation": mutation.operation.value,
            "mutation": _encoder.encode(mutation).decode(),
            "course_id": place.course_id,
            "session_id": place.session_id,
        }
