"""Reads the whole database at one revision, in the orders that a replica is built in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Engine, Row, Table, select

from authz.domain.entities import Kind
from authz.domain.ids import ResourceRef
from authz.domain.instants import Instant
from authz.domain.ports import Dump
from authz.store.database.connections import expecting_long_statements
from authz.store.database.engine import read_transaction, stream
from authz.store.log.reader import read_head, read_token_key
from authz.store.rows import ENTITY_ROWS, read_values
from authz.store.tables import columns_of, tombstones


class SqlDump(Dump):
    """A `Dump` over one open transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # The first read fixes what a deferred transaction sees.
        self.state = read_head(connection)
        self.token_key = read_token_key(connection)

    def entities(self, kind: Kind, by: str = "") -> Iterator[Any]:
        stored = ENTITY_ROWS[kind.name]
        order = columns_of(kind.order_by(by)) if by else stored.key_columns
        chunks = self._chunks(stored.table, stored.table.columns.keys(), order)
        return chain.from_iterable(map(stored.entities, chunks))

    def values(self, kind: Kind, fields: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        wanted = [kind.field(name) for name in fields]
        columns = columns_of(wanted)
        chunks = self._chunks(ENTITY_ROWS[kind.name].table, columns, columns)
        return chain.from_iterable(read_values(wanted, chunk) for chunk in chunks)

    def tombstones(self) -> Iterator[tuple[ResourceRef, Instant]]:
        chunks = self._chunks(tombstones, ("type", "id", "deleted_at"), ("type", "id"))
        return ((ResourceRef(row.type, row.id), row.deleted_at) for chunk in chunks for row in chunk)

    def _chunks(
        self, table: Table, columns: Sequence[str], order: Sequence[str]
    ) -> Iterator[Sequence[Row[Any]]]:
        by = [table.c[name] for name in order]
        statement = select(*(table.c[name] for name in columns)).order_by(*by)
        if by[0].nullable:
            statement = statement.where(by[0].is_not(None))
        return stream(self._connection, statement).partitions()


@contextmanager
def open_dump(engine: Engine) -> Iterator[SqlDump]:
    """A dump that lasts as long as the block."""
    with read_transaction(engine) as connection, expecting_long_statements(connection):
        yield SqlDump(connection)
