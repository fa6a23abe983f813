"""Statements for many rows, passed as one JSON text; built once per table and database.

A statement per row would cost a round trip per row on PostgreSQL. On SQLite it would release the GIL per row,
and a busy event loop delays its return. One array per column would also work on PostgreSQL, but the driver
takes longer to encode an array than the server takes to parse the JSON.

Only what a database needs of SQLAlchemy is imported: that for PostgreSQL takes a twentieth of a start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Table,
    Text,
    bindparam,
    cast,
    delete,
    func,
    literal_column,
    select,
    true,
    tuple_,
)

from authz.store.database.sending import Sender

_MAX_ROWS = 1000
"""Rows per statement; limits the memory of SQLite and of the driver."""

Values = Sequence[Any]


def insert_rows(sender: Sender, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows that name all columns of the table."""
    names = table.columns.keys()
    values = [[row[name] for name in names] for row in rows]
    statement = _inserting(table, sender.dialect.name)
    for given in _parts(values):
        sender.execute(statement, given)


def upsert_rows(sender: Sender, table: Table, rows: Sequence[Values]) -> None:
    """Insert rows of all columns in order, or replace those with the same primary key. Keys are unique."""
    statement = _upserting(table, sender.dialect.name)
    for given in _parts(rows):
        sender.execute(statement, given)


def select_by_key(connection: Connection, table: Table, keys: Sequence[Values]) -> list[Row[Any]]:
    """The rows with one of these primary keys, in no order."""
    return select_by(connection, table, _key_of(table), keys)


def select_by(
    connection: Connection, table: Table, columns: tuple[str, ...], values: Sequence[Values]
) -> list[Row[Any]]:
    """The rows that hold one of these values in some columns, in no order."""
    statement, different = _selecting(table, columns, connection.dialect.name), [*set(map(tuple, values))]
    found: list[Row[Any]] = []
    for given in _parts(different):
        found += connection.execute(statement, given)
    return found


def select_distinct(
    connection: Connection, table: Table, columns: tuple[str, ...], values: Sequence[Values]
) -> set[tuple[Any, ...]]:
    """The values that some row holds in the columns."""
    statement = _selecting(table, columns, connection.dialect.name, distinct=True)
    found: set[tuple[Any, ...]] = set()
    for given in _parts(values):
        found |= set(map(tuple, connection.execute(statement, given)))
    return found


def select_first(
    connection: Connection,
    table: Table,
    columns: tuple[str, ...],
    values: Sequence[Values],
    *,
    order: tuple[str, ...],
    limit: int,
) -> list[Row[Any]]:
    """Up to `limit` of the rows that hold one of these values in some columns, in no order.

    `order` are the columns of an index that begins with those columns.
    """
    if len(values) == 1:
        # In the order of an index, so that no database reads past what was deleted at the front of its table.
        statement = _selecting_equal(table, columns, order)
        given = {f"v{place}": value for place, value in enumerate(values[0])}
        return list(connection.execute(statement, given | {"most": limit}))
    found: list[Row[Any]] = []
    statement = _selecting(table, columns, connection.dialect.name).limit(bindparam("most"))
    for given in _parts(values):
        found += connection.execute(statement, given | {"most": limit - len(found)})
    return found


def delete_by_key(sender: Sender, table: Table, keys: Sequence[Values]) -> None:
    """Delete the rows with one of these primary keys."""
    statement = _deleting(table, sender.dialect.name)
    for given in _parts(keys):
        sender.execute(statement, given)


def _parts(values: Sequence[Values]) -> Iterator[dict[str, Any]]:
    """The parameters of statements for some values each."""
    for start in range(0, len(values), _MAX_ROWS):
        yield {"given": msgspec.json.encode(values[start : start + _MAX_ROWS]).decode()}


def _given(columns: Sequence[Column[Any]], dialect: str) -> tuple[FromClause, list[ColumnElement[Any]]]:
    """The JSON parameter as a table, and its columns."""
    places = range(len(columns))
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import JSONB

        elements = func.jsonb_array_elements(cast(bindparam("given", type_=Text), JSONB))
        rows = elements.table_valued("value").render_derived(name="given")
        return rows, [cast(literal_column(f"given.value ->> {n}"), columns[n].type) for n in places]
    rows = func.json_each(bindparam("given")).table_valued("value", name="given")
    return rows, [literal_column(f"json_extract(given.value, '$[{n}]')") for n in places]


@cache
def _inserting(table: Table, dialect: str) -> Any:
    make: Any
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as make
    else:
        from sqlalchemy.dialects.sqlite import insert as make
    columns = list(table.columns)
    given, values = _given(columns, dialect)
    # SQLite reads ON CONFLICT after a FROM as the ON of a join, unless a WHERE stands between.
    rows = select(*values).select_from(given).where(true())
    return make(table).from_select(table.columns.keys(), rows)


@cache
def _upserting(table: Table, dialect: str) -> Any:
    statement = _inserting(table, dialect)
    keys = _key_of(table)
    others = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=others)


@cache
def _selecting(table: Table, columns: tuple[str, ...], dialect: str, *, distinct: bool = False) -> Any:
    """The rows that hold given values in the columns; with `distinct`, those columns once."""
    chosen = [table.c[name] for name in columns] if distinct else list(table.columns)
    if dialect == "postgresql":
        found, joined = _looked_up(table, columns, chosen)
        statement = select(found).select_from(joined)
    else:
        statement = select(*chosen).where(_has(table, columns, dialect))
    return statement.distinct() if distinct else statement


def _looked_up(
    table: Table, columns: tuple[str, ...], wanted: Sequence[ColumnElement[Any]]
) -> tuple[FromClause, FromClause]:
    """What is wanted of the rows of PostgreSQL that hold the given values, and where to select it from.

    While a table was small, PostgreSQL would read all of it to join it with the values, and a connection
    would keep that plan when the table has grown. With OFFSET, it looks the values up one by one.
    """
    given, values = _given([table.c[name] for name in columns], "postgresql")
    equal = (table.c[name] == value for name, value in zip(columns, values, strict=True))
    found = select(*wanted).select_from(table).where(*equal).offset(0).lateral("found")
    return found, given.join(found, true())


@cache
def _selecting_equal(table: Table, columns: tuple[str, ...], order: tuple[str, ...]) -> Any:
    equal = (table.c[name] == bindparam(f"v{place}") for place, name in enumerate(columns))
    rows = select(table).where(*equal).order_by(*(table.c[name] for name in order))
    return rows.limit(bindparam("most"))


@cache
def _deleting(table: Table, dialect: str) -> Any:
    if dialect != "postgresql":
        return delete(table).where(_has(table, _key_of(table), dialect))
    place: ColumnElement[Any] = literal_column(f"{table.name}.ctid")
    found, joined = _looked_up(table, _key_of(table), [place.label("place")])
    places = select(found.c.place).select_from(joined).scalar_subquery()
    return delete(table).where(place == func.any(func.array(places)))


def _key_of(table: Table) -> tuple[str, ...]:
    return tuple(column.name for column in table.primary_key)


def _has(table: Table, names: tuple[str, ...], dialect: str) -> ColumnElement[bool]:
    columns = [table.c[name] for name in names]
    given, values = _given(columns, dialect)
    return tuple_(*columns).in_(select(*values).select_from(given))
