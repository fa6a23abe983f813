"""Pages of rows by key (keyset pagination), of which each looks at a bounded number of rows.

The cost of a page does not grow with its position, nor with the size of the table, whatever its filter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, Row, Select, and_, literal, select, tuple_

from authz.domain.entities import KINDS, EntityT_co, Filter
from authz.domain.kinds.fields import Field
from authz.domain.ports import Listing, Page
from authz.domain.tokens import ConsistencyToken, PageToken, TokenKeys, malformed_token, query_digest
from authz.store.contents import is_in_existing
from authz.store.log.reader import add_token_key
from authz.store.removals import removal_progress
from authz.store.rows import ENTITY_ROWS, EntityRows
from authz.store.tables import columns_of, parts_of

MAX_ROWS_PER_PAGE = 10_000
"""Rows that a page looks at when its filter has no index. The page ends there, with a token to continue."""

_Condition: TypeAlias = Callable[[Any], ColumnElement[bool]]
"""Makes a condition over the columns of a table or a subquery."""
_BY_FILTER = {kind.filter_type: ENTITY_ROWS[kind.name] for kind in KINDS.values()}
Conditions: TypeAlias = Callable[[Any], Iterable[ColumnElement[bool]]]
"""Makes conditions over the columns of a subquery."""


class PagedRows(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows to read: those of `rows` in the order of its columns `order`, which meet `conditions`.

    `conditions` are those without an index. Without any, a page looks at no more rows than it returns.

    An index must give the rows in that order, or few of them. `fits` says how many of the rows that were
    found make a page, at least one of any.
    """

    rows: Select[Any]
    order: tuple[Column[Any], ...]
    ascending: bool
    conditions: Conditions
    fits: Callable[[Sequence[Row[Any]]], int] = len


def read_page(
    connection: Connection, paged: PagedRows, page: Page, *, database_id: str, keys: TokenKeys, query: object
) -> tuple[Sequence[Row[Any]], str]:
    """The rows of a page of a query, and the token of the next page; empty exactly on the last."""
    add_token_key(connection, database_id, keys)
    digest = query_digest(type(query).__name__, query)
    ordered = paged.rows.order_by(*_directed(paged, paged.order))
    if page.token:
        ordered = ordered.where(_behind(paged, keys.verify_page(database_id, page.token, query=digest)))
    rows, last = _read(connection, paged, ordered, page.size)
    token = "" if last is None else keys.sign_page(database_id, PageToken(digest, last))
    return rows, token


def _read(
    connection: Connection, paged: PagedRows, ordered: Select[Any], size: int
) -> tuple[Sequence[Row[Any]], tuple[Any, ...] | None]:
    """The rows of a page, and the place where it ends if more may follow."""
    names, matching = [column.name for column in paged.order], ordered
    looked_at = ordered.limit(MAX_ROWS_PER_PAGE).subquery("window")
    conditions = [*paged.conditions(looked_at.c)]
    if conditions:
        directed = _directed(paged, [looked_at.c[name] for name in names])
        matching = select(looked_at).where(*conditions).order_by(*directed)
    found = connection.execute(matching.limit(size + 1)).all()
    rows = found[: paged.fits(found[:size])]
    if len(rows) < len(found):
        return rows, tuple(getattr(rows[-1], name) for name in names)
    if not conditions:
        return rows, None
    bounds = ordered.with_only_columns(*paged.order).offset(MAX_ROWS_PER_PAGE - 1).limit(2)
    end = connection.execute(bounds).all()
    return rows, tuple(end[0]) if len(end) > 1 else None


def _behind(paged: PagedRows, token: PageToken) -> ColumnElement[bool]:
    if len(token.last_key) != len(paged.order):
        raise malformed_token("page_token")
    place, last = tuple_(*paged.order), tuple_(*map(literal, token.last_key))
    return place > last if paged.ascending else place < last


def _directed(paged: PagedRows, columns: Iterable[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    return [column.asc() if paged.ascending else column.desc() for column in columns]


def list_entities(
    connection: Connection,
    wanted: Filter[EntityT_co],
    page: Page,
    read_at: ConsistencyToken,
    keys: TokenKeys,
) -> Listing[EntityT_co]:
    """One page of the entities that match a filter, in a transaction that reads the state `read_at`."""
    stored = _BY_FILTER[type(wanted)]
    by_index, fixed, others = _conditions(stored, wanted)
    rows = select(stored.table).where(*by_index)
    order = [name for name in stored.key_columns if name not in fixed] or stored.key_columns
    if removal_progress(connection) is not None:
        # What is still there of a deleted course is no longer in the directory.
        rows = rows.where(is_in_existing(stored.kind, stored.table))
    paged = PagedRows(
        rows=rows,
        order=tuple(stored.table.c[name] for name in order),
        ascending=True,
        conditions=lambda columns: [condition(columns) for condition in others],
    )
    found, token = read_page(
        connection, paged, page, database_id=read_at.database_id, keys=keys, query=wanted
    )
    return Listing(tuple(stored.versioned(found)), token, read_at)


def _conditions(
    stored: EntityRows, wanted: Filter[Any]
) -> tuple[list[ColumnElement[bool]], set[str], list[_Condition]]:
    """A filter as SQL: what an index narrows the rows by, the columns that it so gives one value, and the
    conditions that are left.

    The index is the primary key, if its first field is asked for, else that of a lookup field. A page begins
    within the index only if its order leaves out these columns.
    """
    conditions = {
        field.name: found
        for filter_field, field in stored.kind.filters
        if (found := _condition(filter_field, field, wanted))
    }
    names = [field.name for field in stored.kind.key_fields]
    narrowing = list(takewhile(conditions.__contains__, names))
    narrowing = narrowing or [name for name in stored.kind.lookups if name in conditions][:1]
    by_index = [conditions.pop(name)(stored.table.c) for name in narrowing]
    fixed = columns_of(
        field for given, field in stored.kind.filters if field.name in narrowing and not given.is_many
    )
    return by_index, {*fixed}, list(conditions.values())


def _condition(filter_field: Field, field: Field, wanted: Filter[Any]) -> _Condition | None:
    """A field of a filter as SQL over some columns; None if nothing is asked for."""
    value, names = getattr(wanted, filter_field.name), columns_of([field])
    if filter_field.is_many:
        accepted = [str(each) for each in value]
        return (lambda columns: columns[names[0]].in_(accepted)) if accepted else None
    if value is None:
        return None
    only = value if isinstance(value, int) else str(value)
    parts: list[Any] = [str(getattr(value, part)) for part in parts_of(field)] or [only]
    return lambda columns: and_(*(columns[name] == part for name, part in zip(names, parts, strict=True)))
