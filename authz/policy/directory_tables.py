"""A small directory as tables of plain values, as test files and counterexamples have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import partial
from itertools import islice
from typing import Any

from msgspec import NODEFAULT

from authz.domain.entities import KINDS, Entity, Kind, container_of, kind_of
from authz.domain.errors import InvalidArgumentError, invalid
from authz.domain.ids import parse_resource_ref, parse_scope, parse_subject
from authz.domain.instants import format_instant, parse_instant
from authz.domain.kinds.fields import Field, FieldType
from authz.domain.vocabulary import Vocabulary, suggest
from authz.policy.rows import MAX_FAULTS

_malformed = partial(invalid, "directory")
_PLURALS = {kind.plural: kind for kind in KINDS.values()}
_FORMS: dict[FieldType, tuple[type, str]] = {
    FieldType.FLAG: (bool, "true or false"),
    FieldType.DURATION: (int, "a whole number of microseconds"),
    FieldType.INSTANT: (str, "a time like `2026-09-01T08:00:00Z`"),
}
"""All others are text."""
_PARSERS: dict[FieldType, Callable[[str, str], Any]] = {
    FieldType.SUBJECT: lambda text, field: parse_subject(text, field=field),
    FieldType.SCOPE: lambda text, field: parse_scope(text, field=field),
    FieldType.RESOURCE: lambda text, field: parse_resource_ref(text, field=field),
    FieldType.INSTANT: lambda text, field: parse_instant(text, field=field),
}


def directory_tables(entities: Iterable[Entity]) -> dict[str, list[dict[str, Any]]]:
    """The entities as tables."""
    data: dict[str, list[dict[str, Any]]] = {}
    for entity in entities:
        kind = kind_of(entity)
        data.setdefault(kind.plural, []).append(
            {
                field.name: _plain(value, field)
                for field in kind.fields
                if (value := getattr(entity, field.name)) != field.default
            }
        )
    return data


def read_directory(data: Mapping[str, Any], vocabulary: Vocabulary) -> tuple[Entity, ...]:
    """As `parse_directory`, of a part: its records may be in courses and sessions that are not in the data.

    Raises `InvalidArgumentError` that names each record at fault.
    """
    entities, faults = parse_directory(data, vocabulary, is_whole=False)
    if faults:
        raise _malformed("\n".join(faults))
    return entities


def parse_directory(
    data: Mapping[str, Any], vocabulary: Vocabulary, *, is_whole: bool = True
) -> tuple[tuple[Entity, ...], list[str]]:
    """The entities of the data, containers first, but for those at fault; and each fault, which names its
    record, up to `MAX_FAULTS`, after which no more is read."""
    unknown = islice((name for name in data if name not in _PLURALS), MAX_FAULTS)
    faults = [f"unknown table `{name}`; {suggest(name, _PLURALS)}" for name in unknown]
    entities = tuple(
        entity
        for plural, kind in _PLURALS.items()
        for entity in _entities(kind, data.get(plural, ()), vocabulary, faults)
    )
    if not faults:
        count = Counter(entity.key for entity in entities)
        faults += [f"{key} is in the directory twice; leave one out" for key in count if count[key] > 1]
        for entity in entities if is_whole else ():
            container = container_of(entity)
            if container is not None and container not in count:
                faults.append(f"{entity.key} is in {container}, which is not in the directory; add it")
    return entities, faults


def _entities(kind: Kind, rows: object, vocabulary: Vocabulary, faults: list[str]) -> Iterator[Entity]:
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        faults.append(f"`{kind.plural}` is not a list of tables; write `{kind.plural} = [{{ … }}]`")
        return
    for number, row in enumerate(rows, 1):
        if len(faults) >= MAX_FAULTS:
            return
        try:
            entity = kind.entity(**_values(kind, row))
            kind.validate_key(entity)
            kind.validate(entity, vocabulary)
        except InvalidArgumentError as error:
            error.locate(f"{kind.name} {number}")
            faults.append(error.message)
        else:
            yield entity


def _values(kind: Kind, row: object) -> dict[str, Any]:
    fields = {field.name: field for field in kind.fields}
    if not isinstance(row, Mapping):
        raise _malformed("is not a table; write `{ field = value, … }`")
    for name in row:
        if name not in fields:
            raise _malformed(f"has no field `{name}`; {suggest(name, fields)}")
    for field in fields.values():
        if field.name not in row and field.default is NODEFAULT:
            raise _malformed(f"needs `{field.name}`")
    return {name: _parsed(value, fields[name]) for name, value in row.items()}


def _plain(value: Any, field: Field) -> Any:
    if field.type is FieldType.INSTANT:
        return format_instant(value)
    return value if isinstance(value, bool | int) else str(value)


def _parsed(value: Any, field: Field) -> Any:
    if isinstance(value, date):  # as a datetime is
        value = value.isoformat()
    form, written = _FORMS.get(field.type, (str, "text in quotes"))
    is_right = type(value) is form
    if not is_right:
        raise _malformed(f"{field.name} is `{value}`; write {written}")
    if field.choices is not None:
        names = [choice.value for choice in field.choices]
        if value not in names:
            raise _malformed(f"unknown {field.name} `{value}`; {suggest(value, names)}")
        return field.choices(value)
    parse = _PARSERS.get(field.type)
    return value if parse is None else parse(value, field.name)
