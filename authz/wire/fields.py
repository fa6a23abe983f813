"""The fields of records in messages: one conversion each way for each type of field."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from operator import attrgetter
from typing import Any, TypeAlias, TypeVar

import msgspec
from google.protobuf.descriptor import Descriptor

from authz.domain.errors import malformed
from authz.domain.files import files_text, read_files, require_files
from authz.domain.ids import ResourceRef, is_name, parse_id
from authz.domain.kinds.fields import Field, FieldType, validate_text
from authz.v1 import common_pb2 as pb
from authz.wire.values import (
    WireEnum,
    ascii_excerpt,
    duration_message,
    missing,
    parse_scope,
    parse_subject,
    parse_time,
    scope_message,
    subject_message,
    time_message,
)

T = TypeVar("T")
Parser: TypeAlias = Callable[[Any], Any]
"""Reads the value of one field out of a message. Raises `InvalidArgumentError`, which names the field."""
Formatter: TypeAlias = tuple[Callable[[Any], Any], str, Callable[[Any], Any]]
"""What reads a value off a record, the field of the message that holds it, and what converts it. A value that
is None is not sent."""


def parser_of(field: Field, message: Descriptor, path: str = "") -> Parser:
    """The parser of a field; `path` is what comes before its name in error messages."""
    _require_fields(field, message)
    name = name_in_message(field)
    path += name
    get = attrgetter(name)
    match field.type:
        case FieldType.FLAG:
            return (lambda m: get(m) if m.HasField(name) else None) if field.is_optional else get
        case FieldType.NUMBER:
            return (lambda m: get(m) or None) if field.is_optional else get
        case FieldType.FILES:
            return lambda m: files_text({file.name: file.text for file in get(m)})
        case FieldType.CHOICE:
            return _choice_parser(field, _enum_of(message, field), get, path)
        case FieldType.INSTANT:
            if field.default is msgspec.NODEFAULT:
                return lambda m: _required(parse_time(m, name, field=path), field=path)
            return lambda m: parse_time(m, name, field=path)
        case FieldType.DURATION:
            return lambda m: get(m).ToMicroseconds() if m.HasField(name) else field.default
        case FieldType.RESOURCE:
            return _resource_parser(field, path)
        case FieldType.SUBJECT | FieldType.SCOPE:
            parse: Callable[..., Any] = parse_subject if field.type is FieldType.SUBJECT else parse_scope
            if field.is_optional:
                return lambda m: parse(m, name, field=path) if m.HasField(name) else None
            return lambda m: parse(m, name, field=path)
        case _:
            return _text_parser(field, get, path)


def formatters_of(field: Field, message: Descriptor) -> Iterable[Formatter]:
    """What writes a field into a message."""
    name = name_in_message(field)
    if field.type is FieldType.RESOURCE:
        return [(_part_of(name, part), f"{name}_{part}", _same) for part in ("type", "id")]
    convert = _CONVERSIONS.get(field.type, _same)
    if field.choices is not None:
        convert = _enum_of(message, field).number
    return [(attrgetter(field.name), name, partial(map, convert) if field.is_many else convert)]


def _require_fields(field: Field, message: Descriptor) -> None:
    """Raise `TypeError` for a field of a record that its message has no field for: every call would fail."""
    parts = ("_type", "_id") if field.type is FieldType.RESOURCE else ("",)
    for name in (name_in_message(field) + part for part in parts):
        if name not in message.fields_by_name:
            problem = f"the message {message.full_name} has no field `{name}`"
            raise TypeError(f"{problem}; add it in protos/{message.file.name}, and run `make protos`")


def formatted(record: object, formatters: Iterable[Formatter]) -> dict[str, Any]:
    """The fields of the message of a record, by name."""
    values = ((name, convert, get(record)) for get, name, convert in formatters)
    return {name: convert(value) for name, convert, value in values if value is not None}


def _part_of(name: str, part: str) -> Callable[[Any], Any]:
    """What reads a part of a field off a record; None if the field is."""
    return lambda record: getattr(getattr(record, name), part, None)


def parse_files(messages: Iterable[pb.PolicyFile], *, field: str) -> str:
    """The text of files. Raises `InvalidArgumentError` for files that cannot be kept."""
    files: dict[str, str] = {}
    for message in messages:
        if message.name in files:
            raise malformed(
                field, f"names the file `{ascii_excerpt(message.name)}` twice; send each file once"
            )
        files[message.name] = message.text
    require_files(files, field=field)
    return files_text(files)


def file_messages(text: str) -> list[pb.PolicyFile]:
    """The files of a text, ordered by name."""
    return [pb.PolicyFile(name=name, text=content) for name, content in read_files(text).items()]


def parse_type(text: str, *, field: str) -> str:
    """A well-formed name of a type; whether it is declared is the policy's to say."""
    if not text:
        raise missing(field)
    if not is_name(text):
        raise malformed(field, f"`{ascii_excerpt(text)}` is not the name of a type")
    return text


def _required(value: T | None, *, field: str) -> T:
    if value is None:
        raise missing(field)
    return value


def _parse_role(text: str, *, field: str) -> str:
    if not text:
        raise missing(field)
    return parse_id(text, field=field)


def _text_parser(field: Field, get: Parser, path: str) -> Parser:
    if field.type is FieldType.TEXT:
        if not field.is_optional:
            return get  # the directory validates it

        def parse_text(m: Any) -> str | None:
            validate_text(get(m), field=path, max_length=field.max_length)
            return get(m) or None

        return parse_text
    parse = {FieldType.TYPE: parse_type, FieldType.ROLE: _parse_role}.get(field.type, parse_id)
    if field.is_many:
        return lambda m: tuple(parse(text, field=path) for text in dict.fromkeys(get(m)))
    if field.is_optional:
        return lambda m: parse(get(m), field=path) if get(m) else None
    return lambda m: parse(get(m), field=path)


def _choice_parser(field: Field, enum: WireEnum[Any], get: Parser, path: str) -> Parser:
    if field.is_many:
        return lambda m: tuple(enum.parse(number, field=path) for number in dict.fromkeys(get(m)))
    default = None if field.default is msgspec.NODEFAULT else field.default
    return lambda m: enum.parse(get(m), field=path, default=default)


def _resource_parser(field: Field, path: str) -> Parser:
    type_name, id_name = f"{field.name}_type", f"{field.name}_id"

    def parse(m: Any) -> ResourceRef | None:
        type_text, id_text = getattr(m, type_name), getattr(m, id_name)
        if field.is_optional and not (type_text or id_text):
            return None
        if field.is_optional and not id_text:
            raise missing(f"{path}_id")
        return ResourceRef(parse_type(type_text, field=f"{path}_type"), parse_id(id_text, field=f"{path}_id"))

    return parse


def _enum_of(message: Descriptor, field: Field) -> WireEnum[Any]:
    """The enum of a field, in messages of a type."""
    wire: Any = message.fields_by_name[name_in_message(field)].enum_type
    members: Any = field.choices
    return WireEnum(wire, members)


def name_in_message(field: Field) -> str:
    """The name of the field that holds it in a message; a resource is held by two."""
    return field.name.removesuffix("_us") if field.type is FieldType.DURATION else field.name


def _same(value: Any) -> Any:
    return value


_CONVERSIONS: dict[FieldType, Callable[[Any], Any]] = {
    FieldType.SUBJECT: subject_message,
    FieldType.SCOPE: scope_message,
    FieldType.INSTANT: time_message,
    FieldType.DURATION: duration_message,
    FieldType.FILES: file_messages,
}
