"""A plan as SQL compares ids byte by byte, as a check does, whatever the collation of the columns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    Uuid,
    cast,
    create_engine,
    literal,
    make_url,
    null,
    select,
)
from sqlalchemy.dialects.mysql import TINYINT
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.exc import CompileError
from sqlalchemy.types import TypeEngine

from authz.client import InvalidArgumentError, ResourcePlan
from authz.client.sql import where
from authz.domain.lists import PlanGroup, PlanKind
from authz.domain.predicates import AnyOf, Comparison, Operator, ResourceField
from authz.store.database.engine import open_engine

OWNER = Comparison(ResourceField.OWNER, Operator.EQUALS, "user:Maya")
NOT_OWNER = Comparison(ResourceField.OWNER, Operator.EQUALS, "user:Maya", negated=True)
SHARED = Comparison(ResourceField.SHARE_LEVEL, Operator.EQUALS, "VIEWER")
VISIBLE = Comparison(ResourceField.VISIBILITY, Operator.EQUALS, "COURSE")
FIELDS = ("course_id", "session_id", "owner", "visibility", "share_level")
COURSE_ROW = {"course_id": "C1", "owner": "user:Maya"}
SESSION_ROW = {"session_id": "S1", "owner": "user:Maya"}
ROWS = {
    "course": COURSE_ROW,
    "another course": COURSE_ROW | {"course_id": "c1"},
    "session": SESSION_ROW,
    "another session": SESSION_ROW | {"session_id": "s1"},
    "another owner": COURSE_ROW | {"owner": "user:maya"},
    "shared": {"course_id": "C1", "share_level": "VIEWER"},
    "no share": {"course_id": "C1", "share_level": "viewer"},
    "visible": {"course_id": "C1", "visibility": "COURSE"},
    "no visibility": {"course_id": "C1", "visibility": "course"},
}


def plan_of(predicate: AnyOf | Comparison) -> ResourcePlan:
    return ResourcePlan(
        type="notebook",
        kind=PlanKind.CONDITIONAL,
        groups=(PlanGroup(("C1",), ("S1",), predicate),),
        checked_at="",
        policy_version="",
        valid_until=None,
    )


def table_of(kind: TypeEngine[str]) -> Table:
    columns = (Column(name, kind) for name in FIELDS)
    return Table("notes", MetaData(), Column("name", String(50), primary_key=True), *columns)


@pytest.fixture
def notes(shared_store_url: str) -> Iterator[tuple[Engine, Table]]:
    """A table whose columns ignore case, in each database in turn.

    In a PostgreSQL without ICU no collation does, so there the columns only name one.
    """
    engine = open_engine(shared_store_url)
    table = table_of(String(50, collation="NOCASE" if engine.dialect.name == "sqlite" else "POSIX"))
    with engine.begin() as connection:
        table.create(connection)
        for name, values in ROWS.items():
            connection.execute(table.insert().values(name=name, **values))
    yield engine, table
    with engine.begin() as connection:
        table.drop(connection)
    engine.dispose()


def names_found(notes: tuple[Engine, Table], predicate: AnyOf | Comparison) -> set[str]:
    engine, table = notes
    fields: dict[str, Any] = {name: table.c[name] for name in FIELDS}
    clause = where(plan_of(predicate), **fields)
    with engine.begin() as connection:
        return set(connection.scalars(select(table.c.name).where(clause)))


def test_a_row_of_another_case_is_not_found(notes: tuple[Engine, Table]) -> None:
    found = names_found(notes, AnyOf((OWNER, SHARED, VISIBLE)))
    assert found == {"course", "session", "shared", "visible"}
    assert "another owner" in names_found(notes, NOT_OWNER)


def compiled(dialect: str, kind: TypeEngine[str]) -> str:
    table = table_of(kind)
    fields: dict[str, Any] = {name: table.c[name] for name in FIELDS} | {"session_id": null()}
    sql = str(where(plan_of(OWNER), **fields).compile(dialect=make_url(f"{dialect}://").get_dialect()()))
    return re.sub(r"\s+", " ", sql)


@pytest.mark.parametrize(
    ("dialect", "kind", "expected"),
    [
        ("sqlite", String(), "(notes.owner COLLATE BINARY) ="),
        ("postgresql", String(), "AND notes.owner ="),
        ("postgresql", String(collation="ignore_case"), '(CAST(notes.owner AS TEXT) COLLATE "C") ='),
        ("postgresql", CITEXT(), '(CAST(notes.owner AS TEXT) COLLATE "C") ='),
        ("mysql", String(), "CAST(notes.owner AS BINARY) ="),
        ("mysql", String(collation="utf8mb4_0900_ai_ci"), "CAST(notes.owner AS BINARY) ="),
        ("mysql", String(collation="utf8mb4_bin"), "AND notes.owner ="),
        ("mssql", String(), "(notes.owner COLLATE Latin1_General_BIN2) ="),
        ("mssql", String(collation="Latin1_General_100_BIN2_UTF8"), "AND notes.owner ="),
    ],
)
def test_each_dialect_compares_by_bytes(dialect: str, kind: TypeEngine[str], expected: str) -> None:
    assert expected in compiled(dialect, kind)


def test_a_dialect_that_is_not_known_to_compare_by_bytes_is_refused() -> None:
    with pytest.raises(CompileError, match="`oracle`"):
        compiled("oracle", String())


@pytest.mark.parametrize("kind", [Integer(), Uuid()])
@pytest.mark.parametrize("field", ["course_id", "session_id", "owner"])
def test_an_id_is_not_compared_with_what_is_no_text(kind: TypeEngine[Any], field: str) -> None:
    """To an integer column of SQLite, the course `012` would be the course 12."""
    column = Column("c", kind)
    fields: dict[str, Any] = {name: null() for name in FIELDS} | {field: column}
    with pytest.raises(InvalidArgumentError, match=f"^{field} is of the type .*; give text, such as `cast"):
        where(plan_of(OWNER), **fields)
    assert where(plan_of(OWNER), **fields | {field: cast(column, String)}) is not None


@pytest.mark.parametrize("negated", [True, False])
def test_a_flag_that_is_neither_true_nor_false_is_denied(negated: bool) -> None:
    """As in a database whose other programs write null, or 2 for true."""
    table = Table("flags", MetaData(), Column("locked", Boolean(), primary_key=True, nullable=True))
    condition = Comparison(ResourceField.LOCKED, Operator.EQUALS, True, negated=negated)
    found = where(plan_of(condition), course_id=literal("C1"), session_id=null(), locked=table.c.locked)
    with create_engine("sqlite://").begin() as connection:
        table.create(connection)
        connection.exec_driver_sql("INSERT INTO flags VALUES (NULL), (0), (1), (2)")
        assert connection.scalars(select(cast(table.c.locked, Integer)).where(found)).all() == [
            int(not negated)
        ]


@pytest.mark.parametrize("field", ["published", "locked", "ai_allowed"])
def test_a_flag_is_not_compared_with_what_is_text(field: str) -> None:
    """To MySQL, the text `true` is the number 0, so that what is locked would not be."""
    column, condition = (
        Column("c", String()),
        Comparison(ResourceField(field), Operator.EQUALS, True, negated=True),
    )
    fields: dict[str, Any] = {name: null() for name in FIELDS} | {field: column}
    with pytest.raises(
        InvalidArgumentError, match=f"^{field} is of the type .*; give a Boolean or an integer"
    ):
        where(plan_of(condition), **fields)
    for flag in (column == "yes", Column("c", TINYINT()), Column("c", Boolean()), null()):
        assert where(plan_of(condition), **fields | {field: flag}) is not None
