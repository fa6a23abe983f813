"""Between entities and rows: for each kind, conversions made once from the types of its fields."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Select, select

from authz.domain.entities import KINDS, Entity, Key, Kind, Versioned, kind_of
from authz.domain.ids import ResourceRef, Scope, ScopeKind, Subject, SubjectType
from authz.domain.kinds.fields import Field, FieldType, fields_of
from authz.store.bulk import Values, delete_by_key, upsert_rows
from authz.store.tables import ENTITY_TABLES, columns_of, has_subject, parts_of


class EntityRows:
    """How the entities of one kind are stored."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.table = ENTITY_TABLES[kind.name]
        self.key_columns = columns_of(kind.key_fields)
        """The primary key, in the order of listings."""
        self.key_values = _values_of(kind.key_fields)
        """Of a key or an entity, the values of `key_columns`."""
        self.values = _values_of(kind.fields)
        """Of an entity, the values of all columns but `revision`."""
        read = [field.name for field in kind.fields]
        self._order = [read.index(field.name) for field in fields_of(kind.entity)]

    def entities(self, rows: Sequence[Values]) -> Iterator[Any]:
        """The entities of rows that hold all columns of the table in their order."""
        columns = _read_columns(self.kind.fields, rows)
        return map(self.kind.entity, *(columns[place] for place in self._order))

    def versioned(self, rows: Sequence[Values]) -> Iterator[Versioned[Any]]:
        """As `entities`, with their revisions."""
        return map(Versioned, self.entities(rows), (row[-1] for row in rows))

    def read(self, connection: Connection, statement: Select[Any]) -> list[Versioned[Any]]:
        """The entities, with their revisions, of the rows that a statement selects from the table."""
        return [*self.versioned(connection.execute(statement).all())]

    def about(self, connection: Connection, field: str, subject: Subject, limit: int) -> list[Versioned[Any]]:
        """Up to `limit` of the entities whose `field` is a subject, with their revisions, in no order."""
        wanted = select(self.table).where(has_subject(self.table, field, subject))
        return self.read(connection, wanted.limit(limit))


def subject_of(row: Any, field: str = "subject") -> Subject:
    """The subject in the columns of a field."""
    return Subject(_SUBJECT_TYPES[getattr(row, f"{field}_type")], getattr(row, f"{field}_id"))


def read_values(fields: Iterable[Field], rows: Sequence[Values]) -> Iterator[tuple[Any, ...]]:
    """For each row, the values of fields whose columns it begins with."""
    return zip(*_read_columns(fields, rows), strict=True)


def _values_of(fields: Sequence[Field]) -> Callable[[Any], Values]:
    """A reader of the columns of some fields of an entity. A member of an enum stands for its value."""
    paths: list[str] = []
    splits: list[tuple[int, Callable[[Any], Values]]] = []
    for field in fields:
        parts = parts_of(field)
        if parts and field.is_optional:
            splits.append((len(paths), attrgetter(*parts)))
            paths += [field.name] * len(parts)
        else:
            paths += [f"{field.name}.{part}" for part in parts] or [field.name]
    read = attrgetter(*paths)
    if len(paths) == 1:
        return lambda record: (read(record),)
    if not splits:
        return read

    def values(record: Any) -> Values:
        found = [*read(record)]
        for start, split in splits:
            if found[start] is not None:
                found[start : start + 2] = split(found[start])
        return found

    return values


def _read_columns(fields: Iterable[Field], rows: Sequence[Values]) -> list[Iterable[Any]]:
    """The values of each of the fields in all rows.

    Field by field, so that the loops over the rows are those of `zip` and `map`, which take a third of the
    time of a loop in Python.
    """
    columns: Iterator[tuple[Any, ...]] = iter(zip(*rows, strict=True)) if rows else repeat(())
    return [_read(field, columns) for field in fields]


def _read(field: Field, columns: Iterator[tuple[Any, ...]]) -> Iterable[Any]:
    """The values of a field in all rows, from the next of the columns."""
    first = next(columns)
    if field.choices is not None:
        members = {member.value: member for member in field.choices}
        return map(members.__getitem__, first)
    make = _MADE_OF_TWO.get(field.type)
    if make is None:
        return first
    second = next(columns)
    if field.is_optional:
        return (None if two is None else make(one, two) for one, two in zip(first, second, strict=True))
    return map(make, first, second)


_SUBJECT_TYPES = {member.value: member for member in SubjectType}
_SCOPE_KINDS = {member.value: member for member in ScopeKind}
_MADE_OF_TWO: dict[FieldType, Callable[[Any, Any], Any]] = {
    FieldType.SUBJECT: lambda type_, id_: Subject(_SUBJECT_TYPES[type_], id_),
    FieldType.SCOPE: lambda kind, id_: Scope(_SCOPE_KINDS[kind], id_),
    FieldType.RESOURCE: ResourceRef,
}

ENTITY_ROWS = {kind.name: EntityRows(kind) for kind in KINDS.values()}


def store_records(connection: Connection, records: Mapping[Key, Versioned[Entity] | None]) -> None:
    """Write records, and delete those that are None, in bulk."""
    gone: dict[str, list[Key]] = defaultdict(list)
    kept: dict[str, list[Versioned[Entity]]] = defaultdict(list)
    for key, versioned in records.items():
        if versioned is None:
            gone[kind_of(key).name].append(key)
        else:
            kept[kind_of(key).name].append(versioned)
    for name, stored in ENTITY_ROWS.items():
        delete_by_key(connection, stored.table, [stored.key_values(key) for key in gone[name]])
        rows = [(*stored.values(each.entity), each.revision) for each in kept[name]]
        upsert_rows(connection, stored.table, rows)
