"""Many rows in one statement, made once for each table and database.

The rows are one parameter in SQLite (JSON) and one array a column in PostgreSQL. A statement that runs
once for each row would cost PostgreSQL a plan and SQLite a hand-over of the interpreter a row, which a
busy event loop takes its time to hand back; and SQLAlchemy takes longer to make a statement than either
to run it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Connection,
    Executable,
    FromClause,
    RowMapping,
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
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

_MAX_ROWS = 1000
"""A statement; bounds what SQLite and the driver hold at once."""

Values = Sequence[Any]


def insert_rows(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows that name all columns of the table."""
    values = [[row[column.name] for column in table.columns] for row in rows]
    _execute_in_parts(connection, _inserting(table, connection.dialect.name), values)


def upsert_rows(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Likewise, replacing those whose primary key is there. No two rows have one key."""
    values = [[row[column.name] for column in table.columns] for row in rows]
    _execute_in_parts(connection, _upserting(table, connection.dialect.name), values)


def select_by_key(connection: Connection, table: Table, keys: Sequence[Values]) -> list[RowMapping]:
    """The rows with one of these primary keys, in no order."""
    statement = _selecting(table, connection.dialect.name)
    found: list[RowMapping] = []
    for start in range(0, len(keys), _MAX_ROWS):
        given = _parameters(keys[start : start + _MAX_ROWS], connection.dialect.name)
        found += connection.execute(statement, given).mappings()
    return found


def delete_by_key(connection: Connection, table: Table, keys: Sequence[Values]) -> None:
    """Delete the rows with one of these primary keys."""
    _execute_in_parts(connection, _deleting(table, connection.dialect.name), keys)


def _execute_in_parts(connection: Connection, statement: Executable, values: Sequence[Values]) -> None:
    for start in range(0, len(values), _MAX_ROWS):
        connection.execute(statement, _parameters(values[start : start + _MAX_ROWS], connection.dialect.name))


def _parameters(values: Sequence[Values], dialect: str) -> dict[str, Any]:
    if dialect == "postgresql":
        return {f"given_{place}": list(column) for place, column in enumerate(zip(*values, strict=True))}
    return {"given": msgspec.json.encode(values).decode()}


def _given(columns: Sequence[Column[Any]], dialect: str) -> tuple[FromClause, list[ColumnElement[Any]]]:
    """The parameter as a table, and its columns."""
    places = range(len(columns))
    if dialect == "postgresql":
        types = [ARRAY(Text if isinstance(column.type, Text) else column.type) for column in columns]
        arrays = (cast(bindparam(f"given_{place}", type_=types[place]), types[place]) for place in places)
        names = [f"column_{place}" for place in places]
        table = func.unnest(*arrays).table_valued(*names).render_derived(name="given")
        return table, [table.c[name] for name in names]
    rows = func.json_each(bindparam("given")).table_valued("value", name="given")
    return rows, [literal_column(f"json_extract(given.value, '$[{place}]')") for place in places]


@cache
def _inserting(table: Table, dialect: str) -> Any:
    make = postgresql_insert if dialect == "postgresql" else sqlite_insert
    columns = list(table.columns)
    given, values = _given(columns, dialect)
    # SQLite reads ON CONFLICT after a FROM as the ON of a join, unless a WHERE stands between.
    rows = select(*values).select_from(given).where(true())
    return make(table).from_select([column.name for column in columns], rows)


@cache
def _upserting(table: Table, dialect: str) -> Any:
    statement = _inserting(table, dialect)
    keys = [column.name for column in table.primary_key]
    others = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=others)


@cache
def _selecting(table: Table, dialect: str) -> Any:
    return select(table).where(_has_key(table, dialect))


@cache
def _deleting(table: Table, dialect: str) -> Any:
    return delete(table).where(_has_key(table, dialect))


def _has_key(table: Table, dialect: str) -> ColumnElement[bool]:
    columns = list(table.primary_key)
    given, values = _given(columns, dialect)
    return tuple_(*columns).in_(select(*values).select_from(given))
