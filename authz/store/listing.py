"""Lists entities by key."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Connection, and_, select

from authz.domain.entities import KINDS, EntityT_co, Filter
from authz.domain.kinds.fields import Field
from authz.domain.ports import Listing, Page
from authz.domain.tokens import ConsistencyToken, TokenKeys
from authz.store.contents import is_in_existing
from authz.store.pagination import PagedRows, read_page
from authz.store.removals import removal_progress
from authz.store.rows import ENTITY_ROWS, EntityRows
from authz.store.tables import columns_of, parts_of

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
    by_index, others = _conditions(stored, wanted)
    rows = select(stored.table).where(*by_index)
    if removal_progress(connection) is not None:
        # What is still there of a deleted course is no longer in the directory.
        rows = rows.where(is_in_existing(stored.kind, stored.table))
    paged = PagedRows(
        rows=rows,
        order=tuple(stored.table.c[name] for name in stored.key_columns),
        ascending=True,
        conditions=(lambda columns: [condition(columns) for condition in others]) if others else None,
    )
    found, token = read_page(
        connection, paged, page, database_id=read_at.database_id, keys=keys, query=wanted
    )
    return Listing(tuple(stored.versioned(found)), token, read_at)


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
