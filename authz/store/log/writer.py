"""Writes the change log in one transaction: takes revisions in order, stores them together at the end."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Connection, Table, bindparam, func, select, update

from authz.domain.entities import Resource, kind_of
from authz.domain.ids import ResourceRef
from authz.domain.instants import Instant
from authz.domain.mutations import Change, ChangeScope, LocalCommit, Mutation, Operation
from authz.domain.origin import Origin
from authz.domain.tokens import ConsistencyToken
from authz.store import tables
from authz.store.bulk import delete_by_key, insert_rows, upsert_rows
from authz.store.database.sending import Sender
from authz.store.log.leaves import next_leaves
from authz.store.log.mutation_json import encode_mutation
from authz.store.log.reader import lock_head, read_state

Row: TypeAlias = dict[str, Any]

_NONCE_BITS = 63
_HEAD = tables.revisions.columns.keys()
_COUNT = update(tables.counter).values(revision=bindparam("head"))
_NOTIFY = select(func.pg_notify(tables.REVISIONS_CHANNEL, bindparam("head")))


class Effect(msgspec.Struct, frozen=True):
    """What was done to a record, its scope, and the revision that changed it before; 0 for a new record."""

    mutation: Mutation
    scope: ChangeScope
    previous: int


class ChangeLog:
    """The locked head of the log: until this transaction ends, no other write takes a revision.

    So revisions have no gaps and are committed in order.
    """

    def __init__(self, connection: Connection, clock: Callable[[], Instant]) -> None:
        self._connection = connection
        self._held = self.head = lock_head(connection)
        self.clock_time = clock()
        # Commit times never decrease, although the clocks of two servers may differ.
        self.now = max(self.clock_time, self._held.committed_at)
        # Commit times alone would not tell two histories apart while a clock is behind them.
        self._nonce = secrets.randbits(_NONCE_BITS)
        self._changes: list[Change] = []
        self._effects: list[Sequence[Effect]] = []

    def append(self, effects: Sequence[Effect], origin: Origin) -> None:
        """Take the next revision for these effects; without effects, do nothing."""
        if not effects:
            return
        change = Change(
            revision=self.head.revision + 1,
            committed_at=self.now,
            nonce=self._nonce,
            actor=origin.actor,
            reason=origin.reason,
            request_id=origin.request_id,
            mutations=tuple(effect.mutation for effect in effects),
            scopes=tuple(effect.scope for effect in effects),
        )
        self._changes.append(change)
        self._effects.append(effects)
        self.head = change.state(self._held.database_id)

    def state_at(self, revision: int) -> ConsistencyToken:
        """The state at an earlier revision, also of this transaction. Its time is 0 if its row is gone."""
        database_id = self._held.database_id
        for change in self._changes:
            if change.revision == revision:
                return change.state(database_id)
        known = read_state(self._connection, database_id, revision)
        return ConsistencyToken(database_id, revision) if known is None else known

    def rows(self) -> dict[Table, list[Row]]:
        """The rows of every appended revision: its own, those of its changes, and that of its leaf.

        For the leaf, the records must be stored: it has the subject in place of an erased one's pseudonym.
        """
        if not self._changes:
            return {}
        revisions = [{name: getattr(change, name) for name in _HEAD} for change in self._changes]
        changes = [
            [*_change_rows(change.revision, effects)]
            for change, effects in zip(self._changes, self._effects, strict=True)
        ]
        made = [*zip(revisions, changes, strict=True)]
        return {
            tables.revisions: revisions,
            tables.changes: [*chain.from_iterable(changes)],
            tables.leaves: next_leaves(self._connection, made),
        }

    def store(self, sender: Sender, rows: dict[Table, list[Row]]) -> None:
        """Store the `rows` of every appended revision. On PostgreSQL, notify listeners of the new head."""
        if not rows:
            return
        sender.execute(_COUNT, {"head": self.head.revision})
        for table, added in rows.items():
            insert_rows(sender, table, added)
        self._store_tombstones(sender)
        if sender.dialect.name == "postgresql":
            # Delivered only if this transaction commits.
            sender.execute(_NOTIFY, {"head": str(self.head.revision)})

    def _store_tombstones(self, sender: Sender) -> None:
        """Leave one for each resource that is deleted, and remove that of one that is registered again.

        Here, where every effect passes, those of a deletion of a whole course among them.
        """
        deleted_at: dict[ResourceRef, Instant | None] = {}
        for change in self._changes:
            for mutation in change.mutations:
                if isinstance(mutation.target, Resource):
                    is_deleted = mutation.operation is Operation.DELETE
                    deleted_at[mutation.target.key] = change.committed_at if is_deleted else None
        registered = [(ref.type, ref.id) for ref, at in deleted_at.items() if at is None]
        gone = [(ref.type, ref.id, at) for ref, at in deleted_at.items() if at is not None]
        delete_by_key(sender, tables.tombstones, registered)
        upsert_rows(sender, tables.tombstones, gone)

    def committed(self) -> LocalCommit:
        """The appended revisions. Valid once the transaction has been committed."""
        return LocalCommit(self._held, tuple(self._changes))


def _change_rows(revision: int, effects: Iterable[Effect]) -> Iterator[Row]:
    for position, effect in enumerate(effects):
        yield {
            "revision": revision,
            "position": position,
            "kind": kind_of(effect.mutation.target).name,
            "operation": effect.mutation.operation.value,
            "mutation": encode_mutation(effect.mutation),
            "course_id": effect.scope.course_id,
            "session_id": effect.scope.session_id,
            "previous": effect.previous,
        }
