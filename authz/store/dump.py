"""Reads the whole database at one revision, in the orders that a replica is built in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, select

from authz.domain.entities import Entity, EntityKind
from authz.domain.instants import Instant
from authz.domain.ports import Order
from authz.store import tables
from authz.store.engine import read_transaction
from authz.store.rows import ENTITY_TABLES

_CHUNK = 10_000

_ORDERS: dict[tuple[EntityKind, Order], tuple[str, ...]] = {
    (EntityKind.SESSION, Order.SCOPE): ("course_id", "id"),
    (EntityKind.MEMBERSHIP, Order.SUBJECT): ("subject_type", "subject_id", "scope_kind", "scope_id", "role"),
    (EntityKind.RESOURCE, Order.SCOPE): ("scope_kind", "scope_id", "type", "id"),
    (EntityKind.RESOURCE, Order.SUBJECT): ("owner_type", "owner_id", "type", "id"),
    (EntityKind.SHARE, Order.SUBJECT): ("subject_type", "subject_id", "resource_type", "resource_id"),
}
"""Each is an index; `Order.KEY` is the primary key."""


class SqlDump:
    """A `Dump` over one open transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # The first read fixes what a deferred transaction sees.
        row = connection.execute(select(tables.counter)).one()
        self.database_id: str = row.database_id
        self.revision: int = row.revision
        self.committed_at: Instant = committed_at(connection, row.revision) or 0

    def entities(self, kind: EntityKind, order: Order) -> Iterator[Entity]:
        """All of a kind, in bounded memory."""
        stored = ENTITY_TABLES[kind]
        columns = [stored.table.c[name] for name in _ORDERS.get((kind, order), stored.key_columns)]
        statement = select(stored.table).order_by(*columns)
        if columns[0].nullable:
            statement = statement.where(columns[0].is_not(None))
        result = self._connection.execute(statement, execution_options={"yield_per": _CHUNK})
        return map(stored.from_row, result)


@contextmanager
def open_dump(engine: Engine) -> Iterator[SqlDump]:
    """A dump that lasts as long as the block."""
    with read_transaction(engine) as connection:
        yield SqlDump(connection)


def committed_at(connection: Connection, revision: int) -> Instant | None:
    """When a revision was committed, as the log has it."""
    if revision == 0:
        return 0
    revisions = tables.revisions
    statement = select(revisions.c.committed_at).where(revisions.c.revision == revision)
    found: Instant | None = connection.execute(statement).scalar_one_or_none()
    return found
