"""A plan as a `WHERE` clause of SQLAlchemy over columns of your own: `pip install 'qalamchat-authz[sql]'`."""

from __future__ import annotations

import datetime as dt
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, DateTime, Integer, and_, false, not_, or_, true
from sqlalchemy.sql.elements import SQLCoreOperations
from sqlalchemy.types import NullType

from authz.client.arguments import as_instant, as_result
from authz.client.plans import ResourcePlan
from authz.domain.decisions import COURSE_TYPE
from authz.domain.errors import malformed
from authz.domain.instants import from_datetime, to_datetime
from authz.domain.lists import PlanGroup, PlanKind
from authz.domain.predicates import AllOf, AnyOf, Comparison, Operator, Predicate, ResourceField

Column: TypeAlias = "SQLCoreOperations[Any]"
_NEVER_ABSENT = (
    ResourceField.VISIBILITY,
    ResourceField.PUBLISHED,
    ResourceField.LOCKED,
    ResourceField.AI_ALLOWED,
)
"""A row with null in such a field is denied, whatever the plan says."""


def where(plan: ResourcePlan, *, now: dt.datetime | None = None, **columns: Column) -> ColumnElement[bool]:
    """The rows that a plan allows.

        select(notebooks).where(where(plan, course_id=notebooks.c.course_id, session_id=null(), …))

    `columns` are the fields of a resource in your table, or any expression for them: `course_id` and
    `session_id`, the session being null for what is in a course itself; `owner` (`user:maya`), `visibility`,
    `published`, `available_from`, `available_until`, `created_at`, `locked`, `ai_allowed`; and
    `share_level`, such as a scalar subquery, the level of the share of the resource with the subject. Of the
    type `course` only `course_id` is needed, of `session` only `session_id`.
    Times are `DateTime`, in UTC unless they have a time zone, or integers: microseconds since 1970.

    Raises `ValueError` for a plan whose `valid_until` is over and for a column that the plan needs and that
    is not given, and `InvalidArgumentError` for an argument of another type or a `now` without a time zone.
    """
    plan = as_result(plan, ResourcePlan, field="plan", call="plan_resources")
    at = dt.datetime.now(dt.UTC) if now is None else to_datetime(as_instant(now, field="now"))
    if plan.valid_until is not None and plan.valid_until <= at:
        raise ValueError(f"the plan was valid until {plan.valid_until.isoformat()}; ask for a new one")
    unknown = sorted(columns.keys() - {"course_id", "session_id", *ResourceField})
    if unknown:
        raise ValueError(f"`{unknown[0]}` is no field of a resource; see the docstring of `where`")
    for name, column in columns.items():
        if not isinstance(column, SQLCoreOperations):
            raise malformed(name, f"is `{column!r}`; give a column, or an expression such as `null()`")
    if plan.kind is PlanKind.ALWAYS:
        return true()
    clauses = _Clauses(plan.type, at, columns)
    return or_(false(), *map(clauses.of_group, plan.groups))


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
            in_course = self._column("course_id").in_(group.course_ids)
            own = self._type == COURSE_TYPE
            places.append(in_course if own else and_(in_course, self._column("session_id").is_(None)))
        if group.session_ids:
            places.append(self._column("session_id").in_(group.session_ids))
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
        column = self._column(comparison.field)
        match comparison.operator:
            case Operator.ABSENT:
                return column.is_not(None) if comparison.negated else column.is_(None)
            case Operator.EQUALS:
                holds = column == comparison.value
            case Operator.AT_MOST:
                holds = column <= self._time(comparison)
            case Operator.MORE_THAN:
                holds = column > self._time(comparison)
        if not comparison.negated:
            return holds
        return not_(holds) if comparison.field in _NEVER_ABSENT else or_(column.is_(None), not_(holds))

    def _time(self, comparison: Comparison) -> Any:
        at = self._now + dt.timedelta(microseconds=comparison.from_now_us or 0)
        match self._column(comparison.field).type:  # type: ignore[attr-defined]
            case DateTime(timezone=timezone):
                return at if timezone else at.astimezone(dt.UTC).replace(tzinfo=None)
            case Integer():
                return from_datetime(at)
            case NullType():  # such as `null()`, which compares with nothing
                return at
            case other:
                raise ValueError(
                    f"`{comparison.field}` is of the type {other!r}; give a DateTime or an integer"
                )

    def _column(self, field: str) -> Column:
        if field not in self._columns:
            raise ValueError(f"the plan needs `{field}` of each {self._type}; give its column: {field}=…")
        return self._columns[field]
