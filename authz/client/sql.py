"""A plan as a `WHERE` clause of SQLAlchemy over columns of your own: `pip install 'qalamchat-authz[sql]'`."""

from __future__ import annotations

import datetime as dt
from typing import Any, TypeAlias

from authz.client.arguments import as_instant, as_result
from authz.client.extras import from_extra
from authz.client.plans import ResourcePlan
from authz.domain.decisions import COURSE_TYPE
from authz.domain.errors import InvalidArgumentError, malformed
from authz.domain.instants import Instant, from_datetime, to_datetime
from authz.domain.lists import PlanGroup, PlanKind
from authz.domain.predicates import AllOf, AnyOf, Comparison, Operator, Predicate, ResourceField

with from_extra("sql"):
    from sqlalchemy import (
        Boolean,
        ColumnElement,
        DateTime,
        Integer,
        String,
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
    from sqlalchemy.types import NullType, TypeEngine

Column: TypeAlias = "SQLCoreOperations[Any]"
_BINARY_COLLATIONS = ("_bin", "_bin2", "_bin2_utf8")
"""How the names of the collations of MySQL and SQL Server end that compare byte by byte."""


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
    Times are `DateTime`, in UTC unless they have a time zone, or integers: microseconds since 1970. Flags are
    `Boolean`, or integers: 1 and 0.

    Raises `InvalidArgumentError` for a plan whose `valid_until` is over, for a column that the plan needs and
    that is not given, for an argument or a column of another type, such as an id that is not text, and for a
    `now` without a time zone.
    """
    plan = as_result(plan, ResourcePlan, field="plan", call="plan_resources")
    at = dt.datetime.now(dt.UTC) if now is None else to_datetime(as_instant(now, field="now"))
    if plan.valid_until is not None and plan.valid_until <= at:
        raise malformed("plan", f"was valid until {plan.valid_until.isoformat()}; ask for a new one")
    unknown = sorted(columns.keys() - {"course_id", "session_id", *ResourceField})
    if unknown:
        raise malformed(unknown[0], "is no field of a resource; see the docstring of `where`")
    for name, column in columns.items():
        if not isinstance(column, SQLCoreOperations):
            raise malformed(name, f"is `{column!r}`; give a column, or an expression such as `null()`")
    if plan.kind is PlanKind.ALWAYS:
        return true()
    clauses = _Clauses(plan.type, at, columns)
    return or_(false(), *map(clauses.of_group, plan.groups))


class _Exact(FunctionElement[Any]):
    """A text that is compared byte by byte, as ids are, whatever the collation of the column."""

    inherit_cache = True

    def __init__(self, column: Column) -> None:
        super().__init__(column)
        self.type = column.type  # type: ignore[attr-defined]


@compiles(_Exact)
def _refuse(element: _Exact, compiler: SQLCompiler, **options: Any) -> str:
    if compiler.dialect.name != "default":  # which only prints
        raise CompileError(f"a plan cannot be compared byte by byte in the dialect `{compiler.dialect.name}`")
    return compiler.process(element.clauses, **options)


@compiles(_Exact, "sqlite")
def _in_sqlite(element: _Exact, compiler: SQLCompiler, **options: Any) -> str:
    return f"({compiler.process(element.clauses, **options)} COLLATE BINARY)"


@compiles(_Exact, "postgresql")
def _in_postgresql(element: _Exact, compiler: SQLCompiler, **options: Any) -> str:
    column = compiler.process(element.clauses, **options)
    # The collation of a database compares by bytes for `=`: only a column's own may be nondeterministic.
    if isinstance(element.type, CITEXT) or getattr(element.type, "collation", None):
        return f'(CAST({column} AS TEXT) COLLATE "C")'
    return column


@compiles(_Exact, "mysql", "mariadb")
def _in_mysql(element: _Exact, compiler: SQLCompiler, **options: Any) -> str:
    column = compiler.process(element.clauses, **options)
    return column if _is_binary(element) else f"CAST({column} AS BINARY)"


@compiles(_Exact, "mssql")
def _in_sql_server(element: _Exact, compiler: SQLCompiler, **options: Any) -> str:
    column = compiler.process(element.clauses, **options)
    return column if _is_binary(element) else f"({column} COLLATE Latin1_General_BIN2)"


def _is_binary(element: _Exact) -> bool:
    return str(getattr(element.type, "collation", "")).lower().endswith(_BINARY_COLLATIONS)


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
        is_flag = isinstance(comparison.value, bool)
        column = (self._flag if is_flag else self._column)(comparison.field)
        match comparison.operator:
            case Operator.ABSENT:
                return column.is_not(None) if comparison.negated else column.is_(None)
            case Operator.EQUALS:
                is_text = isinstance(comparison.value, str)
                holds = (self._text(comparison.field) if is_text else column) == comparison.value
            case Operator.AT_MOST:
                holds = column <= self._time(comparison)
            case Operator.MORE_THAN:
                holds = column > self._time(comparison)
        if not comparison.negated:
            return holds
        if is_flag:  # a row that has neither, such as null, is denied
            return column == (not comparison.value)
        if comparison.field is ResourceField.VISIBILITY:  # a resource always has one: null is denied
            return not_(holds)
        return or_(column.is_(None), not_(holds))

    def _time(self, comparison: Comparison) -> Any:
        at = self._now + dt.timedelta(microseconds=comparison.from_now_us or 0)
        match self._column(comparison.field).type:  # type: ignore[attr-defined]
            case DateTime(timezone=timezone):
                return at if timezone else at.astimezone(dt.UTC).replace(tzinfo=None)
            case Integer():
                return from_datetime(at)
            case NullType():  # such as `null()`, which compares with nothing
                return at
            case _:
                remedy = "give a DateTime or an integer, such as `type_coerce(column, DateTime)`"
                raise _of_other_type(comparison.field, self._column(comparison.field), remedy)

    def _text(self, field: str) -> Column:
        column = self._column(field)
        if isinstance(column, Null):
            return column
        if not isinstance(_stored_type(column), String | NullType):  # to SQLite, `012` is the integer 12
            raise _of_other_type(field, column, "give text, such as `cast(column, String)`")
        return _Exact(column)

    def _flag(self, field: str) -> Column:
        column = self._column(field)
        # To MySQL, the text `true` is the number 0, which is false.
        if not isinstance(_stored_type(column), Boolean | Integer | NullType):
            raise _of_other_type(
                field, column, "give a Boolean or an integer, for text such as `column == 'yes'`"
            )
        return column

    def _column(self, field: str) -> Column:
        if field not in self._columns:
            raise malformed(field, f"is what the plan needs of each {self._type}; give its column: {field}=…")
        return self._columns[field]


def _stored_type(column: Column) -> TypeEngine[Any]:
    kind: TypeEngine[Any] = column.type  # type: ignore[attr-defined]
    return kind.impl_instance if isinstance(kind, TypeDecorator) else kind


def _of_other_type(field: str, column: Column, remedy: str) -> InvalidArgumentError:
    return malformed(field, f"is of the type {column.type!r}; {remedy}")  # type: ignore[attr-defined]
