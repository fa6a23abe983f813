"""A plan as a `WHERE` clause of SQLAlchemy over columns of your own: `pip install 'qalamchat-authz[sql]'`."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import Any, TypeAlias

from authz.client.arguments import as_instant, as_result
from authz.client.extras import from_extra
from authz.client.plans import ResourcePlan
from authz.domain.decisions import COURSE_TYPE
from authz.domain.errors import InvalidArgumentError, malformed
from authz.domain.instants import Instant, from_datetime, to_datetime
from authz.domain.kinds.resource import Visibility
from authz.domain.kinds.share import ShareLevel
from authz.domain.lists import PlanGroup, PlanKind
from authz.domain.predicates import AllOf, AnyOf, Comparison, Operator, Predicate, ResourceField

with from_extra("sql"):
    from sqlalchemy import (
        TIMESTAMP,
        Alias,
        BigInteger,
        Boolean,
        ColumnElement,
        DateTime,
        Enum,
        Integer,
        String,
        Table,
        TypeDecorator,
        and_,
        false,
        not_,
        or_,
        true,
    )
    from sqlalchemy.dialects.postgresql import CITEXT
    from sqlalchemy.exc import CompileError
    from sqlalchemy.ext.compiler import compiles
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.elements import Null, SQLCoreOperations
    from sqlalchemy.sql.functions import FunctionElement
    from sqlalchemy.types import TypeEngine

Column: TypeAlias = "SQLCoreOperations[Any]"
_BINARY_COLLATIONS = ("_bin", "_bin2", "_bin2_utf8")
"""How the names of the collations of MySQL and SQL Server end that compare byte by byte."""
_WORDS: dict[ResourceField, type[StrEnum]] = {
    ResourceField.VISIBILITY: Visibility,
    ResourceField.SHARE_LEVEL: ShareLevel,
}


def where(
    plan: ResourcePlan, *, now: dt.datetime | Instant | None = None, **columns: Column
) -> ColumnElement[bool]:
    """The rows that a plan allows.

        select(notebooks).where(where(plan, course_id=notebooks.c.course_id, session_id=null(), …))

    `columns` are the fields of a resource in your table, or any expression for them: `course_id` and
    `session_id`, the session being null for what is in a course itself; `owner` (`user:maya`), `visibility`,
    `published`, `available_from`, `available_until`, `created_at`, `locked`, `ai_allowed`; and
    `share_level`, such as a scalar subquery, the level of the share of the resource with the subject. Of the
    type `course` only `course_id` is needed, of `session` only `session_id`.
    Text is compared byte by byte, whatever the collation of its column; see docs/questions.md.
    Times are `DateTime`, in UTC unless they have a time zone, or `BigInteger`: microseconds since 1970. Flags
    are `Boolean`, or integers: 1 and 0.

    Raises `InvalidArgumentError` for a plan whose `valid_until` is over, for a column that the plan needs and
    that is not given, for an argument or a column of another type or none, such as an id that is not text,
    and for a `now` without a time zone.
    """
    plan = as_result(plan, ResourcePlan, field="plan", call="plan_resources")
    at = dt.datetime.now(dt.UTC) if now is None else to_datetime(as_instant(now, field="now"))
    if plan.valid_until is not None and plan.valid_until <= at:
        raise malformed("plan", f"was valid until {plan.valid_until.isoformat()}; ask for a new one")
    unknown = sorted(columns.keys() - {"course_id", "session_id", *ResourceField})
    if unknown:
        raise malformed(unknown[0], "is no field of a resource; see the docstring of `where`")
    for name, column in columns.items():
        if not (isinstance(column, SQLCoreOperations) and hasattr(column, "type")):  # a hybrid has none
            raise malformed(name, f"is `{column!r}`; give a column, or an expression such as `null()`")
    if plan.kind is PlanKind.ALWAYS:
        return true()
    clauses = _Clauses(plan.type, at, columns)
    return or_(false(), *map(clauses.of_group, plan.groups))


class _Compared(FunctionElement[Any]):
    """A column, or another expression, that a dialect compares in its own way."""

    inherit_cache = True

    def __init__(self, column: Column) -> None:
        super().__init__(column)
        self.type = _type_of(column)

    def kind_in(self, compiler: SQLCompiler) -> TypeEngine[Any]:
        """The type in the database, by the variant and the decorator for its dialect."""
        return _stored_type(_type_of(self._column).dialect_impl(compiler.dialect))

    def collation_in(self, compiler: SQLCompiler) -> str:
        """The collation that a column is declared with, or an empty text."""
        return getattr(self.kind_in(compiler), "collation", None) or "" if self.is_column else ""

    @property
    def is_column(self) -> bool:
        """Whether it is a column of a table.

        The type of any other expression, such as a column of a union, does not say what its parts are.
        """
        table = getattr(self._column, "table", None)
        return isinstance(table.element if isinstance(table, Alias) else table, Table)

    @property
    def _column(self) -> Column:
        return next(iter(self.clauses))


class _Text(_Compared):
    """A text that is compared byte by byte, as ids are, whatever the collation of the column."""

    inherit_cache = True

    def __init__(self, column: Column) -> None:
        super().__init__(column)
        if isinstance(self.type, String) and not isinstance(self.type, Enum):
            self.type = String(self.type.length)  # a value must not have the collation of the column


class _Time(_Compared):
    """A time that is compared in UTC, whatever the time zone of the session."""

    inherit_cache = True


@compiles(_Text)
def _refuse(element: _Text, compiler: SQLCompiler, **options: Any) -> str:
    if compiler.dialect.name != "default":  # which only prints
        raise CompileError(f"a plan cannot be compared byte by byte in the dialect `{compiler.dialect.name}`")
    return _plain(element, compiler, **options)


@compiles(_Time)
def _plain(element: _Compared, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(_Text, "sqlite")
def _in_sqlite(element: _Text, compiler: SQLCompiler, **options: Any) -> str:
    return f"({_plain(element, compiler, **options)} COLLATE BINARY)"


@compiles(_Text, "postgresql")
def _in_postgresql(element: _Text, compiler: SQLCompiler, **options: Any) -> str:
    column, kind = _plain(element, compiler, **options), element.kind_in(compiler)
    is_label = isinstance(kind, Enum) and kind.native_enum  # which has no collation
    # The collation of a database compares by bytes for `=`: only a column's own may be nondeterministic.
    is_plain = element.is_column and not isinstance(kind, CITEXT) and not element.collation_in(compiler)
    return column if is_label or is_plain else f'(CAST({column} AS TEXT) COLLATE "C")'


@compiles(_Text, "mysql", "mariadb")
def _in_mysql(element: _Text, compiler: SQLCompiler, **options: Any) -> str:
    column = _plain(element, compiler, **options)
    # The bytes of UTF-16 would never equal those of a value, so that what is not to be equal would pass.
    return column if _is_binary(element, compiler) else f"CAST(CONVERT({column} USING utf8mb4) AS BINARY)"


@compiles(_Text, "mssql")
def _in_sql_server(element: _Text, compiler: SQLCompiler, **options: Any) -> str:
    column = _plain(element, compiler, **options)
    return column if _is_binary(element, compiler) else f"({column} COLLATE Latin1_General_BIN2)"


@compiles(_Time, "mysql", "mariadb")
def _time_in_mysql(element: _Time, compiler: SQLCompiler, **options: Any) -> str:
    column = _plain(element, compiler, **options)
    if isinstance(element.kind_in(compiler), TIMESTAMP):
        remedy = "set `time_zone = '+00:00'` in each, then give `type_coerce(column, DateTime)`"
        raise CompileError(f"{column} is a TIMESTAMP, which depends on the time zone of a session; {remedy}")
    return column


def _is_binary(element: _Text, compiler: SQLCompiler) -> bool:
    return element.collation_in(compiler).lower().endswith(_BINARY_COLLATIONS)


class _Clauses:
    """Converts predicates of a plan into clauses."""

    def __init__(self, type_name: str, now: dt.datetime, columns: dict[str, Column]) -> None:
        self._type = type_name
        self._now = now
        self._columns = columns

    def of_group(self, group: PlanGroup) -> ColumnElement[bool]:
        """The clause of a group."""
        places = []
        if group.course_ids:
            in_course = self._text("course_id").in_(group.course_ids)
            own = self._type == COURSE_TYPE
            places.append(in_course if own else and_(in_course, self._column("session_id").is_(None)))
        if group.session_ids:
            places.append(self._text("session_id").in_(group.session_ids))
        place = or_(false(), *places)
        return place if group.predicate is None else and_(place, self._of(group.predicate))

    def _of(self, predicate: Predicate) -> ColumnElement[bool]:
        match predicate:
            case AllOf(parts):
                return and_(true(), *map(self._of, parts))
            case AnyOf(parts):
                return or_(false(), *map(self._of, parts))
            case Comparison():
                return self._compared(predicate)

    def _compared(self, comparison: Comparison) -> ColumnElement[bool]:
        field, negated = comparison.field, comparison.negated
        match comparison.operator:
            case Operator.ABSENT:
                column = self._column(field)
                return column.is_not(None) if negated else column.is_(None)
            case Operator.EQUALS if isinstance(comparison.value, bool):
                return self._is(field, comparison.value != negated)
            case Operator.EQUALS:
                holds = self._text(field) == comparison.value
            case Operator.AT_MOST:
                column, at = self._times(comparison)
                holds = column <= at
            case Operator.MORE_THAN:
                column, at = self._times(comparison)
                holds = column > at
        if not negated:
            return holds
        others = [word.value for word in _WORDS.get(field, ()) if word != comparison.value]
        # A row whose word is none of them, such as `course`, is denied.
        opposite = self._text(field).in_(others) if others else not_(holds)
        # A resource always has a visibility, so a row without is denied.
        return opposite if field is ResourceField.VISIBILITY else or_(self._column(field).is_(None), opposite)

    def _times(self, comparison: Comparison) -> tuple[Column, Any]:
        at = self._now + dt.timedelta(microseconds=comparison.from_now_us or 0)
        column = self._column(comparison.field)
        if isinstance(column, Null):
            return column, at
        match _type_of(column):
            case DateTime(timezone=timezone):
                return _Time(column), at if timezone else at.astimezone(dt.UTC).replace(tzinfo=None)
            case BigInteger():
                return column, from_datetime(at)
            case _:
                seconds = "`cast(column, BigInteger) * 1_000_000` for seconds"
                remedy = f"give a DateTime, such as `type_coerce(column, DateTime)`, or {seconds}"
                raise _of_other_type(comparison.field, column, remedy)

    def _text(self, field: str) -> Column:
        column = self._column(field)
        if isinstance(column, Null):
            return column
        if not isinstance(_stored_type(_type_of(column)), String):  # to SQLite, `012` is the integer 12
            raise _of_other_type(field, column, "give text, such as `cast(column, String)`")
        return _Text(column)

    def _is(self, field: str, value: bool) -> ColumnElement[bool]:
        """Whether a flag has a value. A row that has neither, such as null, is denied."""
        column = self._column(field)
        kind = _stored_type(_type_of(column))
        if isinstance(column, Null) or isinstance(kind, Boolean):
            return column == value
        if isinstance(kind, Integer):
            return column == int(value)
        # To MySQL, the text `true` is the number 0, which is false.
        raise _of_other_type(field, column, "give a Boolean or an integer, or such as `column == 'yes'`")

    def _column(self, field: str) -> Column:
        if field not in self._columns:
            raise malformed(field, f"is what the plan needs of each {self._type}; give its column: {field}=…")
        return self._columns[field]


def _type_of(column: Column) -> TypeEngine[Any]:
    kind: TypeEngine[Any] = column.type  # type: ignore[attr-defined]
    return kind


def _stored_type(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    while isinstance(kind, TypeDecorator):
        kind = kind.impl_instance
    return kind


def _of_other_type(field: str, column: Column, remedy: str) -> InvalidArgumentError:
    return malformed(field, f"is of the type {_type_of(column)!r}; {remedy}")
