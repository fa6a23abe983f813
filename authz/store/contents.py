"""What is inside a record at any depth, read in bounded parts, and what a record is in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, exists, or_, true

from authz.domain.entities import (
    KINDS,
    Container,
    Entity,
    Key,
    Kind,
    Session,
    SessionKey,
    Versioned,
    container_of,
    kind_of,
)
from authz.domain.errors import ErrorReason, FailedPreconditionError
from authz.domain.ids import Scope, ScopeKind, course_scope
from authz.domain.kinds.fields import FieldType
from authz.domain.mutations import ChangeScope, Mutation, Operation
from authz.store.bulk import select_first
from authz.store.rows import ENTITY_ROWS, EntityRows
from authz.store.tables import columns_of, parts_of

_CONTAINED = [(ENTITY_ROWS[kind.name], kind.container) for kind in KINDS.values() if kind.container]
CONTAINERS = {name for _, container in _CONTAINED for name in container.kinds}
"""The names of the kinds that contain records of other kinds."""


def read_contents(
    connection: Connection, containers: Sequence[Key], limit: int
) -> tuple[list[Versioned[Entity]], bool]:
    """Up to `limit` of the records inside some records, at any depth, and whether these are all.

    Contents come before their container, and no container comes without all of its contents: so what is read
    can be deleted in this order, and what is left can be read again.
    """
    level = _inside(connection, containers, limit + 1)
    is_all, level = len(level) <= limit, level[:limit]
    inner = [versioned.entity.key for versioned in level if kind_of(versioned.entity).name in CONTAINERS]
    below, _ = read_contents(connection, inner, limit) if inner else ([], True)
    found = below + level[::-1]  # contents that are not all have the limit to themselves
    return found[:limit], is_all and len(found) <= limit


def _inside(connection: Connection, containers: Sequence[Key], limit: int) -> list[Versioned[Entity]]:
    """Up to `limit` of the records directly inside some records."""
    found: list[Versioned[Entity]] = []
    for stored, by in _CONTAINED:
        if values := _values_of(stored, by, containers):
            rows = select_first(
                connection,
                stored.table,
                columns_of([stored.kind.field(by.field)]),
                values,
                order=columns_of(stored.kind.order_by(by.field)),
                limit=limit - len(found),
            )
            # Ordered by key, so that every database logs a deletion in the same order.
            found += stored.versioned(sorted(rows))
    return found


def _values_of(stored: EntityRows, by: Container, containers: Sequence[Key]) -> list[list[Any]]:
    """How records of a kind name these containers, without those that cannot hold this kind."""
    parts = parts_of(stored.kind.field(by.field))
    named = (by.value_of(key) for key in containers if kind_of(key).name in by.kinds)
    return [[getattr(value, part) for part in parts] or [value] for value in named]


def is_in_existing(kind: Kind, table: Table) -> ColumnElement[bool]:
    """In SQL: whether the container of a row exists, and the container of that, and so on."""
    by = kind.container
    if by is None:
        return true()
    field = kind.field(by.field)
    named = [table.c[name] for name in columns_of([field])]
    cases: list[ColumnElement[bool]] = []
    if field.is_optional:
        cases.append(named[0].is_(None))
    if field.type is FieldType.SCOPE:
        cases.append(named[0] == ScopeKind.PLATFORM.value)
    for name in by.kinds:
        outer = ENTITY_ROWS[name]
        rows: Any = outer.table.alias()
        keys = zip(outer.key_columns, named[-len(outer.key_columns) :], strict=True)
        same = [rows.c[column] == given for column, given in keys]
        if field.type is FieldType.SCOPE:
            same.append(named[0] == name)
        cases.append(exists().where(*same, is_in_existing(outer.kind, rows)))
    return or_(*cases)


def cascades(mutation: Mutation) -> bool:
    """Whether applying a mutation may delete more than the entity that it names."""
    return mutation.operation is Operation.DELETE and kind_of(mutation.target).name in CONTAINERS


def touched_keys(mutation: Mutation) -> Iterator[Key]:
    """The keys that applying a mutation reads."""
    yield mutation.key
    container = None if mutation.operation is Operation.DELETE else container_of(mutation.target)
    if container is not None:
        yield container


def require_same_container(before: Entity, after: Entity) -> None:
    """Raise `FailedPreconditionError` if an entity would move out of what it is in."""
    old, new = container_of(before), container_of(after)
    if old != new:
        raise FailedPreconditionError(
            ErrorReason.SCOPE_IMMUTABLE,
            f"{after.key} is in `{old or 'no course'}` and cannot move to `{new or 'no course'}`; "
            "delete it and create it again",
            key=str(after.key),
        )


def require_container(entity: Entity, find: Callable[[Key], Versioned[Entity] | None]) -> None:
    """Raise `FailedPreconditionError` if what an entity is to be in does not exist, or cannot hold it."""
    key = container_of(entity)
    if key is None:
        return
    container = find(key)
    if container is None:
        raise FailedPreconditionError(
            ErrorReason.REFERENCE_NOT_FOUND,
            f"{entity.key} refers to {key}, which does not exist; write that first",
            key=str(key),
        )
    kind_of(entity).validate_container(entity, container.entity)


class Locator:
    """Looks at the records around another by `row`, None for those that are gone, and by `removal`,
    which gives the scope of those whose contents are not all removed yet."""

    def __init__(
        self,
        row: Callable[[Key], Versioned[Entity] | None],
        removal: Callable[[Key], ChangeScope | None],
    ) -> None:
        self._row = row
        self._removal = removal
        self._removed: dict[Key, ChangeScope | None] = {}

    def course_around(self, scope: Scope) -> Scope:
        """The course of a session that has one; else the scope itself."""
        found = self._row(SessionKey(scope.id)) if scope.kind is ScopeKind.SESSION else None
        course_id = (
            found.entity.course_id if found is not None and isinstance(found.entity, Session) else None
        )
        return scope if course_id is None else course_scope(course_id)

    def scope_of(self, entity: Entity) -> ChangeScope:
        """The course and the session of an entity, itself included."""
        ids: dict[ScopeKind, str] = {}
        record: Any = entity
        while record is not None:
            kind = kind_of(record)
            if kind.scope is not None:
                ids[kind.scope] = record.id
            record = kind.container_key(record)
            if record is not None and kind_of(record).container is not None:
                found = self._row(record)
                if found is None and (removed := self._scope_of_removed(record)) is not None:
                    return removed
                record = None if found is None else found.entity
        return ChangeScope(ids.get(ScopeKind.COURSE), ids.get(ScopeKind.SESSION))

    def _scope_of_removed(self, key: Key) -> ChangeScope | None:
        if key not in self._removed:
            self._removed[key] = self._removal(key)
        return self._removed[key]
