"""Pages of entities by key (keyset pagination): the cost of a page does not grow with its position, nor with
the size of the database, whatever its filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, TypeAlias

from sqlalchemy import Column, ColumnElement, Connection, Select, and_, literal, select, tuple_

from authz.domain.entities import KINDS, EntityT_co, Filter
from authz.domain.kinds.fields import Field
from authz.domain.ports import Listing, Page
from authz.domain.tokens import ConsistencyToken, PageToken, TokenKeys, malformed_token, query_digest
from authz.store.contents import is_in_existing
from authz.store.removals import removal_progress
from authz.store.rows import ENTITY_ROWS, EntityRows
from authz.store.tables import columns_of, parts_of

MAX_ROWS_PER_PAGE = 10_000
"""Rows that a page looks at when its filter has no index. The page ends there, with a token to go on."""

_Condition: TypeAlias = Callable[[Any], ColumnElement[bool]]
"""Makes a condition over the columns of a table or a subquery."""

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
    query = query_digest(stored.kind.name, wanted)
    by_index, others = _conditions(stored, wanted)
    ordered = select(stored.table).where(*by_index).order_by(*order)
    if page.token:
        last_key = keys.open_page(read_at.database_id, page.token, query=query).last_key
        if len(last_key) != len(order):
            raise malformed_token("page_token")
        ordered = ordered.where(tuple_(*order) > tuple_(*(literal(part) for part in last_key)))
    if removal_progress(connection) is not None:
        # What is still there of a deleted course is no longer in the directory.
        ordered = ordered.where(is_in_existing(stored.kind, stored.table))
    rows = connection.execute(_matching(ordered, others, order).limit(page.size + 1)).all()
    items = tuple(stored.versioned(rows[: page.size]))
    last: Sequence[str] | None = None
    if len(rows) > page.size:
        last = stored.key_values(items[-1].entity)
    elif others:
        last = _end_of_window(connection, ordered, order)
    token = "" if last is None else keys.seal_page(read_at.database_id, PageToken(query, tuple(last)))
    return Listing(items, token, read_at)


def _matching(
    ordered: Select[Any], others: Sequence[_Condition], order: Sequence[Column[Any]]
) -> Select[Any]:
    """The rows that match conditions without an index, of the first rows of a statement."""
    if not others:
        return ordered
    window = ordered.limit(MAX_ROWS_PER_PAGE).subquery("window")
    conditions = (condition(window.c) for condition in others)
    return select(window).where(*conditions).order_by(*(window.c[column.name] for column in order))


def _end_of_window(
    connection: Connection, ordered: Select[Any], order: Sequence[Column[Any]]
) -> Sequence[str] | None:
    """The key of the last row that was looked at; None if no row follows it."""
    bounds = ordered.with_only_columns(*order).offset(MAX_ROWS_PER_PAGE - 1).limit(2)
    found = connection.execute(bounds).all()
    return found[0] if len(found) > 1 else None


def _conditions(
    stored: EntityRows, wanted: Filter[Any]
) -> tuple[list[ColumnElement[bool]], list[_Condition]]:
    """A filter as SQL: what an index narrows the rows by, and the conditions that are left.

    The index is the primary key, if its first field is asked for, else that of a lookup field.
    """
    asked_for = {
        field.name: found
        for asked, field in stored.kind.filters
        if (found := _condition(asked, field, wanted))
    }
    names = [field.name for field in stored.kind.key_fields]
    narrowing = list(takewhile(asked_for.__contains__, names))
    narrowing = narrowing or [name for name in stored.kind.lookups if name in asked_for][:1]
    by_index = [asked_for.pop(name)(stored.table.c) for name in narrowing]
    return by_index, list(asked_for.values())


def _condition(asked: Field, field: Field, wanted: Filter[Any]) -> _Condition | None:
    """A field of a filter as SQL over some columns; None if nothing is asked for."""
    value, names = getattr(wanted, asked.name), columns_of([field])
    if asked.is_many:
        accepted = [str(each) for each in value]
        return (lambda columns: columns[names[0]].in_(accepted)) if accepted else None
    if value is None:
        return None
    only = value if isinstance(value, int) else str(value)
    parts: list[Any] = [str(getattr(value, part)) for part in parts_of(field)] or [only]
    return lambda columns: and_(*(columns[name] == part for name, part in zip(names, parts, strict=True)))
