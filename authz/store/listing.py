"""Pages of entities by key (keyset pagination): the cost of a page does not grow with its position."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, literal, select, tuple_

from authz.domain.entities import KINDS, EntityT_co, Filter
from authz.domain.ports import Listing, Page
from authz.domain.tokens import ConsistencyToken, PageToken, TokenKeys, malformed_token
from authz.store.contents import is_in_existing
from authz.store.removals import removal_progress
from authz.store.rows import ENTITY_ROWS, EntityRows
from authz.store.tables import columns_of, parts_of

_BY_FILTER = {kind.filter_type: ENTITY_ROWS[kind.name] for kind in KINDS.values()}


def list_entities(
    connection: Connection,
    wanted: Filter[EntityT_co],
    page: Page,
    read_at: ConsistencyToken,
    keys: TokenKeys,
) -> Listing[EntityT_co]:
    """One page of the entities that match a filter, in a transaction that reads the state `read_at`."""
    stored = _BY_FILTER[type(wanted)]
    order = [stored.table.c[name] for name in stored.key_columns]
    query = hashlib.blake2b(msgspec.json.encode((stored.kind.name, wanted)), digest_size=8).hexdigest()
    statement = select(stored.table).where(*_conditions(stored, wanted)).order_by(*order).limit(page.size + 1)
    if page.token:
        last_key = keys.open_page(read_at.database_id, page.token, query=query).last_key
        if len(last_key) != len(order):
            raise malformed_token("page_token")
        statement = statement.where(tuple_(*order) > tuple_(*(literal(text) for text in last_key)))
    if removal_progress(connection) is not None:
        # What is still there of a deleted course is no longer in the directory.
        statement = statement.where(is_in_existing(stored.kind, stored.table))
    rows = connection.execute(statement).all()
    items = tuple(stored.versioned(rows[: page.size]))
    last = PageToken(query, tuple(stored.key_values(items[-1].entity))) if len(rows) > page.size else None
    return Listing(items, "" if last is None else keys.seal_page(read_at.database_id, last), read_at)


def _conditions(stored: EntityRows, wanted: Filter[Any]) -> Iterator[ColumnElement[bool]]:
    """A filter as SQL."""
    for asked, field in stored.kind.filters:
        value = getattr(wanted, asked.name)
        columns = [stored.table.c[name] for name in columns_of([field])]
        if asked.is_many and value:
            yield columns[0].in_([str(each) for each in value])
        elif not asked.is_many and value is not None:
            parts = [getattr(value, part) for part in parts_of(field)] or [value]
            yield from (column == str(part) for column, part in zip(columns, parts, strict=True))
