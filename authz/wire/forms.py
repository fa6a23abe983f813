"""Structs and the messages with the same fields, converted both ways as the two declare their fields.

For what the server sends and the client reads back. A new field needs only the struct and the message.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from operator import attrgetter
from types import NoneType
from typing import Any, Generic, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from authz.domain.decisions import Rule
from authz.domain.entities import KINDS, Versioned
from authz.v1.common_pb2 import ConsistencyToken
from authz.wire.changes import parse_logged_mutation
from authz.wire.decisions import rule_message
from authz.wire.entities import entity_message, mutation_message, parse_versioned
from authz.wire.values import (
    WireEnum,
    duration_message,
    parse_scope_message,
    parse_subject_message,
    scope_message,
    subject_message,
    time_message,
)

T = TypeVar("T")


class Codec(NamedTuple):
    """How a value is converted: to what a message takes, None for nothing, and back."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def received(read: Callable[[Any], Any]) -> Codec:
    """The codec of what is never sent."""
    return Codec(_refuse, read)


def _refuse(value: object) -> None:
    raise AssertionError(f"{value!r} is only received")


def _same(value: Any) -> Any:
    return value


_CODECS = {
    "google.protobuf.Timestamp": Codec(time_message, lambda m: m.ToMicroseconds()),
    "google.protobuf.Duration": Codec(duration_message, lambda m: m.ToMicroseconds()),
    "authz.v1.ConsistencyToken": Codec(lambda token: ConsistencyToken(token=token), attrgetter("token")),
    "authz.v1.Mutation": Codec(mutation_message, parse_logged_mutation),
    "authz.v1.Rule": Codec(rule_message, lambda m: Rule(*map(partial(getattr, m), Rule.__struct_fields__))),
    "authz.v1.Scope": Codec(scope_message, partial(parse_scope_message, field="scope")),
    "authz.v1.Subject": Codec(subject_message, partial(parse_subject_message, field="subject")),
}
"""By the full name of a message."""
_CLIENT_CODECS = {
    ("google.protobuf.Timestamp", dt.datetime): received(lambda m: m.ToDatetime(dt.UTC)),
    ("authz.v1.Scope", str): received(lambda m: str(parse_scope_message(m, field="scope"))),
}
"""By the full name of a message and what the client has for it, where that differs."""
_RECORDS = {f"authz.v1.{kind.entity.__name__}" for kind in KINDS.values()}


class Form(Generic[T]):
    """The message of a struct or of a named tuple.

    `names` are the names of fields that differ in the message, and `without` the fields that it lacks. If it
    lacks any other field, that holds a struct whose fields are in the message itself. `own` has the forms of
    structs in fields where such differences are, and codecs that convert the whole value of a field.
    """

    def __init__(
        self,
        struct: Callable[..., T],
        message: Callable[..., Any],
        *,
        names: Mapping[str, str] | None = None,
        without: tuple[str, ...] = (),
        **own: Codec | Form[Any],
    ) -> None:
        self._struct, self._message = struct, message
        self._writers: list[tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = []
        self._readers: list[tuple[str, Callable[[Any], Any]]] = []
        self._spread: list[tuple[Callable[[Any], Any], Form[Any]]] = []
        of: Descriptor = message.DESCRIPTOR  # type: ignore[attr-defined]  # as every message has
        for name, hint in get_type_hints(struct).items():
            field = of.fields_by_name.get((names or {}).get(name, name))
            if name in without:
                continue
            if field is None:
                if not get_type_hints(hint):
                    raise TypeError(f"{of.full_name} has no field for `{name}` of {struct}")
                form = own.get(name) or Form(hint, message)
                assert isinstance(form, Form)  # noqa: S101  no single field has its value; narrows the type
                self._spread.append((attrgetter(name), form))
                self._readers.append((name, form.parse))
            else:
                write, read = _field_codec(field, hint, own.get(name))
                self._writers.append((field.name, attrgetter(name), write))
                self._readers.append((name, read))

    def message(self, value: T) -> Any:
        """The message of a value."""
        return self._message(**self.fields(value))

    def fields(self, value: T) -> dict[str, Any]:
        """The fields of the message of a value, those that the struct has."""
        found = {path: write(get(value)) for path, get, write in self._writers}
        for get, form in self._spread:
            found |= form.fields(get(value))
        return found

    def parse(self, message: Any) -> T:
        """The value of a message. Raises `InvalidArgumentError` for a member of an enum that is not known."""
        return self._struct(**self.values(message))

    def values(self, message: Any) -> dict[str, Any]:
        """The fields of the value of a message, without those that it lacks. Raises as `parse`."""
        return {name: read(message) for name, read in self._readers}


def _field_codec(field: FieldDescriptor, hint: Any, given: Codec | Form[Any] | None) -> Codec:
    """How a field is written, from its value, and read, from the message that has it."""
    path, get = field.name, attrgetter(field.name)
    if isinstance(given, Codec):
        return Codec(given.write, lambda m: given.read(get(m)))
    many: Any = get_origin(hint) if get_origin(hint) in (tuple, list) else None
    is_optional = NoneType in get_args(hint)
    if many or is_optional:
        (hint,) = (each for each in get_args(hint) if each not in (NoneType, ...))
    write, read = _codec_of(field, hint, given)
    if many:
        return Codec(partial(map, write), lambda m: many(map(read, get(m))))
    if not is_optional:
        return Codec(write, lambda m: read(get(m)))
    if field.message_type is None:
        return Codec(_unless_none(write), lambda m: read(get(m)) if get(m) else None)
    return Codec(_unless_none(write), lambda m: read(get(m)) if m.HasField(path) else None)


def _unless_none(write: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else write(value)


def _codec_of(field: FieldDescriptor, hint: Any, form: Form[Any] | None) -> Codec:
    """That of a single value."""
    if field.enum_type is not None:
        (members,) = (each for each in get_args(hint) or (hint,) if issubclass(each, StrEnum))
        enum = WireEnum(field.enum_type, members)
        read = enum.received if members is not hint else partial(enum.parse, field=field.name)
        return Codec(enum.number, read)
    if field.message_type is None:
        return Codec(_same, _same)
    name = field.message_type.full_name
    if name in _RECORDS:
        if get_origin(hint) is Versioned:
            return Codec(entity_message, parse_versioned)
        return Codec(lambda record: entity_message(Versioned(record, 0)), lambda m: parse_versioned(m).entity)
    if known := _CLIENT_CODECS.get((name, hint)) or _CODECS.get(name):
        return known
    form = form or Form(hint, GetMessageClass(field.message_type))
    return Codec(form.message, form.parse)
