"""Keeps the decision log in a table, and reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, or_, select

from authz.domain.decision_log import (
    DecisionEntry,
    DecisionPage,
    DecisionQuery,
    DecisionTable,
    StoredDecision,
    names_in,
    with_pseudonyms,
)
from authz.domain.ports import Page
from authz.domain.tokens import TokenKeys
from authz.store.bulk import select_by_key, upsert_rows
from authz.store.database.engine import bounded_read_transaction, write_transaction
from authz.store.log.decision_leaves import append_leaf, lock_tree
from authz.store.log.reader import read_head
from authz.store.pagination import PagedRows, read_page
from authz.store.privacy.erased import pseudonyms_of, require_not_erased_since
from authz.store.tables import decisions as table

_FIELDS = tuple(name for name in table.columns.keys() if name != "leaf")  # noqa: SIM118  not a mapping
_values = attrgetter(*_FIELDS)
_ORDER = (table.c.at, table.c.decision_id)


class SqlDecisions(DecisionTable):
    """A `DecisionTable` in SQLite or PostgreSQL."""

    def __init__(self, engine: Engine, keys: TokenKeys) -> None:
        self._engine = engine
        self._keys = keys

    def append(self, entries: Sequence[DecisionEntry]) -> None:
        with write_transaction(self._engine) as connection:
            if select_by_key(connection, table, [(entries[0].at, entries[0].decision_id)]):
                return
            lock_tree(connection)  # so that no erasure searches the log between this look and the commit
            if erased := pseudonyms_of(connection, {name for each in entries for name in names_in(each)}):
                entries = [with_pseudonyms(each, erased) for each in entries]
            leaf = append_leaf(connection, entries)
            upsert_rows(connection, table, [(*_values(entry), leaf) for entry in entries])

    def read(self, query: DecisionQuery, page: Page) -> DecisionPage:
        paged = PagedRows(
            rows=_rows(query),
            order=_ORDER,
            ascending=query.oldest_first,
            conditions=partial(_conditions, query),
        )
        with bounded_read_transaction(self._engine) as connection:
            names = (str(query.subject), query.principal)
            require_not_erased_since(connection, names, query.since or 0)
            database_id = read_head(connection).database_id
            rows, token = read_page(
                connection, paged, page, database_id=database_id, keys=self._keys, query=query
            )
        return DecisionPage(tuple(StoredDecision(**row._mapping) for row in rows), token)


def _rows(query: DecisionQuery) -> Select[Any]:
    """The rows that an index finds in the order of time: by subject, else by resource."""
    rows = select(table)
    if query.since is not None:
        rows = rows.where(table.c.at >= query.since)
    if query.until is not None:
        rows = rows.where(table.c.at < query.until)
    if query.subject is not None:
        return rows.where(table.c.subject == str(query.subject))
    if query.resource is not None:
        return rows.where(table.c.resource == str(query.resource))
    return rows


def _conditions(query: DecisionQuery, columns: Any) -> Iterator[ColumnElement[bool]]:
    if query.resource is not None:
        yield columns.resource == str(query.resource)
    if query.principal:
        yield or_(columns.caller == query.principal, columns.person == query.principal)
    if query.action:
        yield columns.action == query.action
    if query.allowed is not None:
        yield columns.allowed.is_(query.allowed)
    if query.allowed:
        yield columns.policy_version != ""
