"""Reads resources from CSV or JSON Lines."""

from __future__ import annotations

import codecs
import json
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import msgspec

from authz.domain.entities import KINDS, Key, Resource
from authz.domain.errors import InvalidArgumentError
from authz.domain.errors import malformed as malformed_field
from authz.domain.ids import Scope, course_scope, parse_id, parse_subject, session_scope
from authz.domain.instants import parse_instant
from authz.domain.kinds.fields import Field, FieldType
from authz.domain.mutations import Mutation, Operation
from authz.domain.vocabulary import suggest
from authz.importers.report import ParsedSource, RowFault, Sourced, quoted
from authz.importers.source_file import is_stream, name_of, open_source, unreadable
from authz.importers.tables import Record, malformed_line, parse_flag, read_csv, read_lines

_RESOURCE = KINDS["resource"]
COLUMNS = ("type", "id", "course_id", "session_id", *_RESOURCE.updatable)
"""The columns of a row. `type` and `owner` have defaults from the command; `owner` is like `user:maya`."""

_SNIFFED_BYTES = 4096


def read_resources(
    path: Path, *, type_name: str = "", owner: str = "", ignored: Collection[str] = ()
) -> ParsedSource:
    """Read `path`: JSON Lines if it ends in `.jsonl`, else CSV; of a pipe, JSON Lines if it begins with `{`.
    Rows without type or owner get these.

    Raises `InvalidArgumentError` for a malformed file, and for a column that is neither known nor ignored: a
    misspelt `available_until` must not become a resource without an end. Invalid rows become faults, and so
    do rows that say different things of one resource.
    """
    if path.suffix.lower() in {".json", ".ndjson"}:
        raise unreadable(path, "is not CSV; put one JSON object on each line of a file that ends in `.jsonl`")
    if owner:
        parse_subject(owner, field="owner")
    given = {"type": type_name, "owner": owner}
    parsed = ParsedSource([], [], [])
    name = name_of(path)
    with open_source(path) as stream:
        is_json = path.suffix.lower() == ".jsonl" or (is_stream(path) and _begins_as_json(stream))
        read = _json_lines if is_json else partial(read_csv, required=("id",), others=True)
        for line, record in read(stream, name):
            if not record:
                parsed.notes.append(RowFault(name, line, "is an empty row; skipped"))
                continue
            unknown = [column for column in record if column not in (*COLUMNS, *ignored)]
            if unknown:
                raise malformed_line(
                    name,
                    line if is_json else 1,
                    f"unknown column `{unknown[0]}`; {suggest(unknown[0], COLUMNS)}; to ignore it, add"
                    f" `--ignore {unknown[0]}`",
                )
            try:
                resource = _resource(record, given)
            except InvalidArgumentError as error:
                parsed.faults.append(RowFault(name, line, error.message))
            else:
                parsed.mutations.append(Sourced(Mutation(Operation.TOUCH, resource), name, line))
    return _one_row_each(parsed)


def _begins_as_json(stream: IO[bytes]) -> bool:
    begin = stream.read(_SNIFFED_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
    stream.seek(0)
    return begin.startswith(b"{")


def _one_row_each(parsed: ParsedSource) -> ParsedSource:
    """The same, without the rows that repeat another one, or contradict it."""
    rows: dict[Key, list[Sourced]] = {}
    for each in parsed.mutations:
        rows.setdefault(each.mutation.key, []).append(each)
    kept = []
    for key, (first, *others) in rows.items():
        if all(each.mutation == first.mutation for each in others):
            kept.append(first)
            text = f"{key} is also on line {first.line}, which says the same; skipped"
            parsed.notes.extend(RowFault(each.file, each.line, text) for each in others)
        else:
            lines = ", ".join(str(each.line) for each in (first, *others))
            text = f"{key} is on lines {lines}, which differ; keep one of them"
            parsed.faults.extend(RowFault(each.file, each.line, text) for each in (first, *others))
    return msgspec.structs.replace(parsed, mutations=kept)


def _json_lines(stream: IO[bytes], name: str) -> Iterator[tuple[int, Record]]:
    for line, text in enumerate(read_lines(stream, name), 1):
        if not text.strip():
            continue
        try:
            value: Any = msgspec.json.decode(text, type=dict[str, str | bool | None])
        except msgspec.DecodeError as error:
            raise malformed_line(
                name, line, f"is not a JSON object of strings and booleans ({error})"
            ) from None
        _require_each_once(text, len(value), name, line)
        yield line, {key: _as_text(each) for key, each in value.items()}


def _require_each_once(text: str, count: int, name: str, line: int) -> None:
    """Refuse an object of `count` keys that repeats one: readers differ on which value counts."""
    pairs: list[tuple[str, object]] = json.loads(text, object_pairs_hook=list)
    if len(pairs) != count:
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise malformed_line(name, line, f"has the key {quoted(repeated)} twice; remove one")


def _as_text(value: str | bool | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else str(value).lower()


def _resource(record: Record, given: Record) -> Resource:
    def text(column: str) -> str:
        return record.get(column, "") or given.get(column, "")

    if not text("type"):
        raise malformed_field("type", "is empty; fill the column or set `--type`")
    values = {name: _value(field, text(name)) for name, field in _RESOURCE.updatable.items() if text(name)}
    return Resource(type=text("type"), id=parse_id(text("id"), field="id"), scope=_scope(record), **values)


def _value(field: Field, text: str) -> Any:
    """The value of a field that is not empty."""
    match field.type:
        case FieldType.FLAG:
            return parse_flag(text, field=field.name)
        case FieldType.INSTANT:
            return parse_instant(text, field=field.name)
        case FieldType.SUBJECT:
            return parse_subject(text, field=field.name)
        case _:
            choices = {each.value: each for each in field.choices or ()}
            if text.upper() not in choices:
                raise malformed_field(field.name, f"`{text}` is none of {', '.join(choices)}")
            return choices[text.upper()]


def _scope(record: Record) -> Scope:
    course_id, session_id = record.get("course_id", ""), record.get("session_id", "")
    if bool(course_id) is bool(session_id):
        raise malformed_field("course_id", "or session_id must be filled, exactly one of them")
    if course_id:
        return course_scope(parse_id(course_id, field="course_id"))
    return session_scope(parse_id(session_id, field="session_id"))
