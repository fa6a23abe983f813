"""Reads the whole database at one revision, in the orders that a replica is built in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, starmap
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Connection, Engine, Row, Table, select

from authz.domain.entities import Entity, EntityKind, Membership, SessionKey
from authz.domain.ids import ResourceRef, Scope, Subject, course_scope
from authz.domain.ports import Link
from authz.store import tables
from authz.store.connections import expecting_long_statements
from authz.store.engine import read_transaction
from authz.store.log_reader import read_head
from authz.store.rows import ENTITY_TABLES, membership_of, scope_of, subject_of

_CHUNK = 1_000

Holder: TypeAlias = Scope | Subject
Held: TypeAlias = Subject | SessionKey | ResourceRef


class _LinkColumns(msgspec.Struct, frozen=True):
    """An index of a table that has all of a link, so that nothing else need be read, and what it says."""

    table: Table
    columns: tuple[str, ...]
    read: Callable[..., tuple[Holder, Held]]


_LINKS = {
    Link.SESSION_IN: _LinkColumns(
        tables.sessions, ("course_id", "id"), lambda course, id_: (course_scope(course), SessionKey(id_))
    ),
    Link.MEMBER_IN: _LinkColumns(
        tables.memberships,
        ("scope_kind", "scope_id", "subject_type", "subject_id"),
        lambda kind, id_, *subject: (scope_of(kind, id_), subject_of(*subject)),
    ),
    Link.RESOURCE_IN: _LinkColumns(
        tables.resources,
        ("scope_kind", "scope_id", "type", "id"),
        lambda kind, id_, *ref: (scope_of(kind, id_), ResourceRef(*ref)),
    ),
    Link.RESOURCE_OF: _LinkColumns(
        tables.resources,
        ("owner_type", "owner_id", "type", "id"),
        lambda kind, id_, *ref: (subject_of(kind, id_), ResourceRef(*ref)),
    ),
    Link.SHARE_WITH: _LinkColumns(
        tables.shares,
        ("subject_type", "subject_id", "resource_type", "resource_id"),
        lambda kind, id_, *ref: (subject_of(kind, id_), ResourceRef(*ref)),
    ),
}
_BY_SUBJECT = ("subject_type", "subject_id", "scope_kind", "scope_id", "role")


class SqlDump:
    """A `Dump` over one open transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # The first read fixes what a deferred transaction sees.
        self.state = read_head(connection)

    def entities(self, kind: EntityKind) -> Iterator[Entity]:
        """See `Dump.entities`."""
        stored = ENTITY_TABLES[kind]
        return map(stored.from_row, self._rows(stored.table, stored.table.columns.keys(), stored.key_columns))

    def memberships(self) -> Iterator[Membership]:
        """See `Dump.memberships`."""
        table = tables.memberships
        return map(membership_of, self._rows(table, table.columns.keys(), _BY_SUBJECT))

    def links(self, link: Link) -> Iterator[tuple[Holder, Held]]:
        """See `Dump.links`."""
        of = _LINKS[link]
        return starmap(of.read, self._rows(of.table, of.columns, of.columns))

    def _rows(self, table: Table, columns: Sequence[str], order: Sequence[str]) -> Iterable[Row[Any]]:
        by = [table.c[name] for name in order]
        statement = select(*(table.c[name] for name in columns)).order_by(*by)
        if by[0].nullable:
            statement = statement.where(by[0].is_not(None))
        found = self._connection.execute(statement, execution_options={"yield_per": _CHUNK})
        return chain.from_iterable(found.partitions())


@contextmanager
def open_dump(engine: Engine) -> Iterator[SqlDump]:
    """A dump that lasts as long as the block."""
    with read_transaction(engine) as connection, expecting_long_statements(connection):
        yield SqlDump(connection)
