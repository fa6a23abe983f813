"""A plan as SQL compares ids byte by byte, as a check does, whatever the collation of the columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Engine,
    Enum,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    TypeDecorator,
    Uuid,
    case,
    cast,
    column,
    func,
    literal,
    make_url,
    null,
    select,
    true,
    type_coerce,
    union,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import CompileError
from sqlalchemy.ext.hybrid import Comparator
from sqlalchemy.types import TypeEngine

from authz.client import InvalidArgumentError, ResourcePlan
from authz.client.sql import where
from authz.domain.lists import PlanGroup, PlanKind
from authz.domain.predicates import AnyOf, Comparison, Operator, ResourceField
from authz.store.database.engine import open_engine

OWNER = Comparison(ResourceField.OWNER, Operator.EQUALS, "user:Maya")
NOT_OWNER = Comparison(ResourceField.OWNER, Operator.EQUALS, "user:Maya", negated=True)
SHARED = Comparison(ResourceField.SHARE_LEVEL, Operator.EQUALS, "VIEWER")
NOT_SHARED = Comparison(ResourceField.SHARE_LEVEL, Operator.EQUALS, "VIEWER", negated=True)
VISIBLE = Comparison(ResourceField.VISIBILITY, Operator.EQUALS, "COURSE")
NOT_VISIBLE = Comparison(ResourceField.VISIBILITY, Operator.EQUALS, "COURSE", negated=True)
LOCKED = Comparison(ResourceField.LOCKED, Operator.EQUALS, True)
OPEN = Comparison(ResourceField.AVAILABLE_FROM, Operator.AT_MOST, from_now_us=0)
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
    "private": {"course_id": "C1", "visibility": "PRIVATE"},
    "shared to edit": {"course_id": "C1", "share_level": "EDITOR"},
}


class Folded(TypeDecorator[str]):
    """A text that PostgreSQL keeps as `CITEXT`."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return CITEXT() if dialect.name == "postgresql" else String()


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
    table = table_of(String(collation="NOCASE" if engine.dialect.name == "sqlite" else "POSIX"))
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


def test_a_word_that_is_none_is_neither_equal_nor_different(notes: tuple[Engine, Table]) -> None:
    found = names_found(notes, NOT_SHARED)
    assert found >= {"course", "shared to edit"}
    assert not found & {"shared", "no share"}
    assert names_found(notes, NOT_VISIBLE) == {"private"}


def compiled(
    dialect: str, kind: TypeEngine[Any], condition: Comparison = OWNER, **columns: ColumnElement[Any]
) -> str:
    table = table_of(kind)
    fields: dict[str, Any] = {name: table.c[name] for name in FIELDS} | {"session_id": null()} | columns
    sql = str(where(plan_of(condition), **fields).compile(dialect=make_url(f"{dialect}://").get_dialect()()))
    return re.sub(r"\s+", " ", sql)


CAST_IN = {
    "postgresql": ("ignore_case", 'AS TEXT) COLLATE "C") ='),
    "mysql": ("utf8mb4_bin", "USING utf8mb4) AS BINARY) ="),
    "mssql": ("Latin1_General_BIN2", "COLLATE Latin1_General_BIN2) ="),
}
"""The collation of a column in each database, and how an expression with that column is compared."""


@pytest.mark.parametrize(
    ("dialect", "kind", "expected"),
    [
        ("sqlite", String(), "(notes.owner COLLATE BINARY) ="),
        ("postgresql", String(), "AND notes.owner ="),
        ("postgresql", String(collation="ignore_case"), '(CAST(notes.owner AS TEXT) COLLATE "C") ='),
        ("postgresql", CITEXT(), '(CAST(notes.owner AS TEXT) COLLATE "C") ='),
        ("postgresql", String().with_variant(CITEXT(), "postgresql"), 'AS TEXT) COLLATE "C") ='),
        ("postgresql", Folded(), 'AS TEXT) COLLATE "C") ='),
        ("postgresql", Enum("user:Maya", name="owners"), "AND notes.owner ="),
        ("mysql", String(), "CAST(CONVERT(notes.owner USING utf8mb4) AS BINARY) ="),
        ("mysql", String(collation="utf8mb4_0900_ai_ci"), "USING utf8mb4) AS BINARY) ="),
        ("mysql", String(collation="utf8mb4_bin").with_variant(String(5), "mysql"), "AS BINARY) ="),
        ("mariadb", String(), "CAST(CONVERT(notes.owner USING utf8mb4) AS BINARY) ="),
        ("mysql", String(collation="utf8mb4_bin"), "AND notes.owner ="),
        ("mssql", String(), "(notes.owner COLLATE Latin1_General_BIN2) ="),
        ("mssql", String(collation="Latin1_General_100_BIN2_UTF8"), "AND notes.owner ="),
    ],
)
def test_each_dialect_compares_by_bytes(dialect: str, kind: TypeEngine[str], expected: str) -> None:
    assert expected in compiled(dialect, kind)


@pytest.mark.parametrize("dialect", CAST_IN)
@pytest.mark.parametrize(
    "expression",
    [
        lambda owner: cast(owner, String),
        lambda owner: literal("user:") + owner,
        lambda owner: func.coalesce(literal("x"), owner),
        lambda owner: case((true(), literal("x")), else_=owner),
        lambda owner: select(cast(owner, String).label("owner")).subquery().c.owner,
        lambda owner: union(select(table_of(String()).c.owner), select(owner)).subquery().c.owner,
    ],
    ids=["cast", "concatenation", "function", "case", "subquery", "union"],
)
def test_an_expression_is_compared_by_bytes_whatever_its_parts(
    dialect: str, expression: Callable[[ColumnElement[Any]], ColumnElement[Any]]
) -> None:
    """The type of `'user:' || owner` does not have the collation that the text has in PostgreSQL."""
    collation, expected = CAST_IN[dialect]
    owner = table_of(String(50, collation=collation)).c.owner
    assert expected in compiled(dialect, String(), owner=expression(owner))


def test_an_expression_over_a_column_finds_what_the_column_finds(notes: tuple[Engine, Table]) -> None:
    engine, table = notes
    names = []
    for owner in (table.c.owner, literal("user:") + func.substr(table.c.owner, 6)):
        fields: dict[str, Any] = {name: table.c[name] for name in FIELDS} | {"owner": owner}
        clause = where(plan_of(OWNER), **fields)
        with engine.begin() as connection:
            names.append(set(connection.scalars(select(table.c.name).where(clause))))
    assert names == [{"course", "session"}] * 2


@pytest.mark.parametrize("dialect", ["mysql", "mariadb"])
def test_a_timestamp_that_depends_on_the_session_is_refused(dialect: str) -> None:
    for kind in (TIMESTAMP(), mysql.TIMESTAMP(fsp=6), DateTime().with_variant(TIMESTAMP(), dialect)):
        opens_at = Column("opens_at", kind)
        with pytest.raises(
            CompileError, match=r"^opens_at is a TIMESTAMP, .* `type_coerce\(column, DateTime"
        ):
            compiled(dialect, String(), OPEN, available_from=opens_at)
        for dialect_of, given in ((dialect, type_coerce(opens_at, DateTime)), ("postgresql", opens_at)):
            assert "opens_at <=" in compiled(dialect_of, String(), OPEN, available_from=given)


@pytest.mark.parametrize("condition", [OWNER, VISIBLE, LOCKED, OPEN])
def test_a_column_without_a_type_is_refused(condition: Comparison) -> None:
    """Each database would convert it in a way of its own, such as a number to a time."""
    field = condition.field
    with pytest.raises(InvalidArgumentError, match=rf"^{field} is of the type NullType\(\); give "):
        compiled("sqlite", String(), condition, **{field: column("c")})
    with pytest.raises(InvalidArgumentError, match=r"^course_id is of the type NullType\(\); give text"):
        compiled("sqlite", String(), course_id=column("c"))
    assert "NULL" in compiled("sqlite", String(), condition, **{field: null()})


def test_what_has_no_type_is_no_column() -> None:
    """A hybrid may have a comparison of its own, such as one that ignores case."""
    owner: Any = Comparator(column("owner", String()))
    with pytest.raises(InvalidArgumentError, match=r"^owner is .*; give a column"):
        compiled("sqlite", String(), owner=owner)


@pytest.mark.parametrize("kind", [Integer(), SmallInteger()])
def test_a_time_is_not_compared_with_an_integer_too_small_for_microseconds(kind: TypeEngine[Any]) -> None:
    """As integers hold seconds, which would all be in the past."""
    seconds = Column("opens_s", kind)
    with pytest.raises(
        InvalidArgumentError, match=r"^available_from is of the type .*, BigInteger\) \* 1_000"
    ):
        compiled("sqlite", String(), OPEN, available_from=seconds)
    given = cast(seconds, BigInteger) * 1_000_000
    assert "* ? <= ?" in compiled("sqlite", String(), OPEN, available_from=given)


def test_a_dialect_that_is_not_known_to_compare_by_bytes_is_refused() -> None:
    with pytest.raises(CompileError, match="`oracle`"):
        compiled("oracle", String())


@pytest.mark.parametrize("kind", [Integer(), Uuid()])
@pytest.mark.parametrize("field", ["course_id", "session_id", "owner"])
def test_an_id_is_not_compared_with_what_is_no_text(kind: TypeEngine[Any], field: str) -> None:
    """To an integer column of SQLite, the course `012` would be the course 12."""
    id_ = Column("c", kind)
    fields: dict[str, Any] = {name: null() for name in FIELDS} | {field: id_}
    with pytest.raises(InvalidArgumentError, match=f"^{field} is of the type .*; give text, such as `cast"):
        where(plan_of(OWNER), **fields)
    assert where(plan_of(OWNER), **fields | {field: cast(id_, String)}) is not None


@pytest.mark.parametrize("kind", [Boolean, Integer])
@pytest.mark.parametrize("negated", [True, False])
def test_a_flag_that_is_neither_true_nor_false_is_denied(
    shared_store_url: str, negated: bool, kind: type[TypeEngine[Any]]
) -> None:
    """As in a database whose other programs write null, or 2 for true."""
    engine = open_engine(shared_store_url)
    stored = kind if engine.dialect.name == "postgresql" else Integer
    columns = (Column("id", Integer, primary_key=True), Column("locked", stored))
    table = Table("flags", MetaData(), *columns)
    locked = type_coerce(table.c.locked, kind)
    values = [None, False, True] if stored is Boolean else [None, 0, 1, 2]
    condition = Comparison(ResourceField.LOCKED, Operator.EQUALS, True, negated=negated)
    found = where(plan_of(condition), course_id=literal("C1"), session_id=null(), locked=locked)
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), [{"locked": value} for value in values])
        assert connection.scalars(select(cast(table.c.locked, Integer)).where(found)).all() == [
            int(not negated)
        ]
        table.drop(connection)
    engine.dispose()


@pytest.mark.parametrize("field", ["published", "locked", "ai_allowed"])
def test_a_flag_is_not_compared_with_what_is_text(field: str) -> None:
    """To MySQL, the text `true` is the number 0, so that what is locked would not be."""
    text, condition = (
        Column("c", String()),
        Comparison(ResourceField(field), Operator.EQUALS, True, negated=True),
    )
    fields: dict[str, Any] = {name: null() for name in FIELDS} | {field: text}
    with pytest.raises(
        InvalidArgumentError, match=f"^{field} is of the type .*; give a Boolean or an integer"
    ):
        where(plan_of(condition), **fields)
    for flag in (text == "yes", Column("c", mysql.TINYINT()), Column("c", Boolean()), null()):
        assert where(plan_of(condition), **fields | {field: flag}) is not None
