"""What the caller of a client gives, as the domain has it: text parsed, times as instants.

`user:maya` and `Subject(…)`, a datetime and an `Instant`, `ACTIVE` and `CourseState.ACTIVE` are equally good.
What is neither raises `InvalidArgumentError`, which names the argument.
"""

from __future__ import annotations

import codecs
import datetime as dt
import os
from collections.abc import Callable, Iterable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import msgspec
from google.protobuf import timestamp_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from authz.domain.entities import KINDS, KINDS_BY_TYPE, Entity, EntityKind, Filter, Key, kind_of
from authz.domain.errors import InvalidArgumentError, malformed
from authz.domain.ids import (
    ResourceRef,
    Scope,
    Subject,
    parse_id,
    parse_resource_ref,
    parse_scope,
    parse_subject,
)
from authz.domain.instants import MAX_INSTANT, MIN_INSTANT, Instant, from_datetime
from authz.domain.kinds.fields import Field, FieldType
from authz.domain.mutations import Expectation, Mutation, Operation, Precondition
from authz.v1 import common_pb2
from authz.wire.values import scope_message, subject_message, time_message

T = TypeVar("T")
ParsedT = TypeVar("ParsedT", Subject, Scope, ResourceRef)
ChoiceT = TypeVar("ChoiceT", bound=StrEnum)
EntityT = TypeVar("EntityT", bound=Entity)
RecordT = TypeVar("RecordT", bound=msgspec.Struct)
MessageT = TypeVar("MessageT", bound=Message)
P = ParamSpec("P")

_MAX_SHOWN = 80
_NUMBER_BITS = 64
_WORDS: dict[int, str] = {
    FieldDescriptor.CPPTYPE_STRING: "text",
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_INT32: "a whole number of less than 32 bits",
    FieldDescriptor.CPPTYPE_INT64: "a whole number of less than 64 bits",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
}
"""By the type of a field of a message, what it takes."""
_MAX_SECONDS = 10**9
"""Some 30 years; gRPC takes what is much longer for a time that is over."""


def as_subject(given: str | Subject, *, field: str = "subject") -> Subject:
    """`user:maya`, parsed, or as it is."""
    return _parsed(given, Subject, parse_subject, field, "`user:maya`")


def as_caller(given: str | Subject, *, field: str) -> Subject:
    """`service:notebooks`, parsed, or as it is."""
    form = "service:notebooks"
    return _parsed(given, Subject, partial(parse_subject, form=form), field, f"`{form}`")


def as_scope(given: str | Scope, *, field: str = "scope") -> Scope:
    """`course:algebra-1`, parsed, or as it is."""
    return _parsed(given, Scope, parse_scope, field, "`course:algebra-1`")


def as_resource(given: str | ResourceRef, *, field: str = "resource") -> ResourceRef:
    """`notebook:nb-7`, parsed, or as it is."""
    return _parsed(given, ResourceRef, parse_resource_ref, field, "`notebook:nb-7`")


def as_instant(given: dt.datetime | Instant, *, field: str) -> Instant:
    """A datetime with a time zone, or microseconds since 1970."""
    if isinstance(given, dt.datetime) and given.tzinfo is not None:
        return from_datetime(given)
    if isinstance(given, int) and not isinstance(given, bool) and MIN_INSTANT <= given <= MAX_INSTANT:
        return given
    raise _unusable(field, given, "a datetime with a time zone")


def sent_subject(given: str | Subject, *, field: str = "subject") -> common_pb2.Subject:
    """`as_subject`, as a request has it."""
    return subject_message(as_subject(given, field=field))


def sent_scope(given: str | Scope, *, field: str = "scope") -> common_pb2.Scope:
    """`as_scope`, as a request has it."""
    return scope_message(as_scope(given, field=field))


def sent_course(given: str | None) -> str:
    """The id of the course whose policy a call is about, as a request has it: empty for None, the platform's.

    An empty id, as of a field that somebody left out, is malformed: a call about the policy of a course must
    not reach the platform's.
    """
    return "" if given is None else parse_id(as_text(given, field="course_id"), field="course_id")


def sent_time(given: dt.datetime | Instant | None, *, field: str) -> timestamp_pb2.Timestamp | None:
    """`as_instant`, as a request has it; None for None."""
    return None if given is None else time_message(as_instant(given, field=field))


def as_result(given: T, kind: type[T], *, field: str, call: str) -> T:
    """What a call of the client returned."""
    if not isinstance(given, kind):
        raise _unusable(field, given, f"what `{call}` returns")
    return given


def as_text(given: str, *, field: str) -> str:
    """Text as it is."""
    if not isinstance(given, str):
        raise _unusable(field, given, "text")
    try:
        given.encode()
    except UnicodeEncodeError:  # such as a half of a surrogate pair, which JSON may have
        raise _unusable(field, given, "text that UTF-8 can encode") from None
    return given


def as_number(given: int, *, field: str) -> int:
    """A whole number as it is."""
    if type(given) is not int or given.bit_length() >= _NUMBER_BITS:
        raise _unusable(field, given, "a whole number of less than 64 bits")
    return given


def nonzero(given: float, *, field: str) -> Any:
    """A number as it is. Raises `InvalidArgumentError` for 0, for which a server would take its default."""
    if given == 0:
        raise malformed(field, "is 0; give a number above 0")
    return given


def as_flag(given: bool, *, field: str) -> bool:
    """True or false as it is."""
    if not isinstance(given, bool):
        raise _unusable(field, given, "true or false")
    return given


def as_path(given: str | os.PathLike[str], *, field: str) -> Path:
    """The path of a file."""
    if not isinstance(given, str | os.PathLike) or given == "":
        raise _unusable(field, given, "the path of a file")
    return Path(given)


def contents_of(given: str | os.PathLike[str], *, field: str) -> bytes:
    """What is in a file of text, without a byte order mark. Raises `InvalidArgumentError` if it cannot be
    read."""
    try:
        return as_path(given, field=field).read_bytes().removeprefix(codecs.BOM_UTF8)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise malformed(field, f"is `{given}`, which cannot be read: {why}") from error


def as_seconds(given: float, *, field: str) -> float:
    """A length of time that ends."""
    if not isinstance(given, int | float) or not 0 < given < _MAX_SECONDS:
        raise _unusable(field, given, "a number of seconds above 0, below a billion")
    return given


def as_choice(given: str | ChoiceT, choices: type[ChoiceT], *, field: str) -> ChoiceT:
    """A member of an enum, or its name."""
    try:
        return choices(given)
    except ValueError:
        raise _unusable(field, given, f"one of {', '.join(choices)}") from None


def as_iterable(given: Iterable[T], *, field: str) -> Iterable[T]:
    """What is iterable, unless it is a text."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise _unusable(field, given, "a list")
    return given


def as_list(given: Iterable[T], *, field: str) -> list[T]:
    """A list of what is iterable, unless it is a text."""
    return list(as_iterable(given, field=field))


def as_kinds(given: Iterable[str | EntityKind]) -> tuple[EntityKind, ...]:
    """Kinds of records by name."""
    return tuple(as_choice(each, EntityKind, field="kinds") for each in as_list(given, field="kinds"))


def message_of(make: Callable[P, MessageT], /, *args: P.args, **fields: P.kwargs) -> MessageT:
    """A message with these fields. Raises `InvalidArgumentError` that names one of another type."""
    try:
        return make(*args, **fields)
    except (TypeError, ValueError, OverflowError):
        anything: Callable[..., MessageT] = make
        for name, value in fields.items():
            try:
                anything(**{name: value})
            except (TypeError, ValueError, OverflowError) as error:
                raise _unusable(name, value, _wanted(make, name)) from error
        raise


def _wanted(make: Any, name: str) -> str:
    """What the field of a message takes, in words."""
    return _WORDS.get(make.DESCRIPTOR.fields_by_name[name].cpp_type, "a value of another type")


def as_mutation(given: Mutation) -> Mutation:
    """A mutation whose record has only values of the types that its fields have. Raises
    `InvalidArgumentError` for a CREATE or TOUCH that has only a key."""
    if not isinstance(given, Mutation):
        raise _unusable("mutations", given, "a list of `Mutation(Operation.CREATE, …)`, or of `update(…)`")
    operation, target = as_choice(given.operation, Operation, field="operation"), as_record(given.target)
    values = given.values
    if values:
        by_name = {field.name: field for field in kind_of(target).fields}
        values = tuple(
            (name, _value_of(value, by_name[name], name) if name in by_name else value)
            for name, value in values
        )
    made = msgspec.structs.replace(given, operation=operation, target=target, values=values)
    made.require_entity()
    return made


def as_precondition(given: Precondition) -> Precondition:
    """A precondition whose key has only values of the types that its fields have."""
    if not isinstance(given, Precondition):
        raise _unusable("preconditions", given, "a list of `Precondition(key, Expectation.EXISTS)`")
    expectation = as_choice(given.expectation, Expectation, field="expectation")
    return msgspec.structs.replace(given, key=as_record(given.key), expectation=expectation)


def as_record(given: Entity | Key) -> Any:
    """An entity or a key with only values of the types that its fields have."""
    kind = KINDS_BY_TYPE.get(type(given))
    if kind is None:
        raise _unusable("record", given, "an entity or a key, such as `Course(id=…)` or `CourseKey(…)`")
    return _completed(given, kind.fields, f"{kind.name}.")


def as_filter(given: Filter[EntityT]) -> Filter[EntityT]:
    """A filter with only values of the types that its fields have."""
    kind = _FILTERED.get(type(given))
    if kind is None:
        raise _unusable("wanted", given, "a filter, such as `CourseFilter(ids=…)`")
    return _completed(given, [field for field, _ in kind.filters], "")


_FILTERED = {kind.filter_type: kind for kind in KINDS.values() if not kind.service}


def _completed(given: RecordT, fields: Iterable[Field], path: str) -> RecordT:
    changed = {}
    for field in fields:
        value = getattr(given, field.name, None)
        if value is not None:
            found = _value_of(value, field, f"{path}{field.name}")
            if found is not value:
                changed[field.name] = found
    return msgspec.structs.replace(given, **changed) if changed else given


def _value_of(value: Any, field: Field, label: str) -> Any:
    if value is None and field.is_optional:
        return None
    if field.is_many:
        return tuple(_single_value(each, field, label) for each in as_list(value, field=label))
    return _single_value(value, field, label)


def _single_value(value: Any, field: Field, label: str) -> Any:
    if field.choices is not None:
        return as_choice(value, field.choices, field=label)
    return _CONVERSIONS.get(field.type, as_text)(value, field=label)


def _duration_us(given: dt.timedelta | int, *, field: str) -> int:
    if isinstance(given, dt.timedelta):
        return given // dt.timedelta(microseconds=1)
    return as_number(given, field=field)


_CONVERSIONS: dict[FieldType, Callable[..., Any]] = {
    FieldType.SUBJECT: as_subject,
    FieldType.SCOPE: as_scope,
    FieldType.RESOURCE: as_resource,
    FieldType.INSTANT: as_instant,
    FieldType.DURATION: _duration_us,
    FieldType.FLAG: as_flag,
    FieldType.NUMBER: as_number,
}


def _parsed(
    given: str | ParsedT, kind: type[ParsedT], parse: Callable[..., ParsedT], field: str, example: str
) -> ParsedT:
    if isinstance(given, kind):
        return given
    if isinstance(given, str):
        return parse(given, field=field)
    raise _unusable(field, given, f"text like {example}, or a `{kind.__name__}`")


def _unusable(field: str, given: object, wanted: str) -> InvalidArgumentError:
    return malformed(field, f"is {_shown(given)}; give {wanted}")


def _shown(given: object) -> str:
    text = f"`{given!r}`"
    return text if len(text) <= _MAX_SHOWN else f"a {type(given).__name__}"
