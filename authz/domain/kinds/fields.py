"""The types of the fields of records, and which values of each are well-formed.

The store, the wire form and the replica have one conversion for each type, so a new kind of record needs
none of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum
from types import NoneType
from typing import Annotated, Any, TypeAlias, get_args, get_origin

import msgspec

from authz.domain.errors import ErrorReason, InvalidArgumentError, malformed
from authz.domain.files import validate_files
from authz.domain.ids import ResourceRef, Scope, ScopeKind, Subject, parse_id
from authz.domain.instants import MAX_INSTANT, MIN_INSTANT, Instant
from authz.domain.origin import MAX_REASON_LENGTH


class FieldType(Enum):
    """What a field holds. A plain `str` or an `int` that is no instant needs one of the aliases below."""

    ID = "an id"
    ROLE = "the name of a role"
    TYPE = "the name of a type of resource"
    TEXT = "text of bounded length"
    FLAG = "true or false"
    CHOICE = "a member of an enum"
    INSTANT = "a time in microseconds"
    DURATION = "a length of time in microseconds"
    SUBJECT = "a subject"
    SCOPE = "a scope"
    RESOURCE = "a resource by type and id"
    NUMBER = "a whole number from 1"
    FILES = "text files by name, as one text"


class MaxLength(msgspec.Struct, frozen=True):
    """How many characters a text may have."""

    characters: int


Id: TypeAlias = Annotated[str, FieldType.ID]
RoleName: TypeAlias = Annotated[str, FieldType.ROLE]
TypeName: TypeAlias = Annotated[str, FieldType.TYPE]
DurationUs: TypeAlias = Annotated[int, FieldType.DURATION]
Number: TypeAlias = Annotated[int, FieldType.NUMBER]
FilesText: TypeAlias = Annotated[str, FieldType.FILES]
Reason: TypeAlias = Annotated[str, MaxLength(MAX_REASON_LENGTH)]
Digest: TypeAlias = Annotated[str, MaxLength(64)]
"""A SHA-256 in hexadecimal digits."""

MAX_NUMBER = 2**53
"""Every number up to it is exact in JSON."""

_Choices: TypeAlias = type[StrEnum]

_BY_HINT = {
    bool: FieldType.FLAG,
    int: FieldType.INSTANT,
    Subject: FieldType.SUBJECT,
    Scope: FieldType.SCOPE,
    ResourceRef: FieldType.RESOURCE,
}


class Field(msgspec.Struct, frozen=True):
    """One field of an entity, a key or a filter.

    `default` is `msgspec.NODEFAULT` for a field that must be set. `is_many` is true for a field of a filter
    that holds several accepted values.
    """

    name: str
    type: FieldType
    default: Any
    is_optional: bool
    is_many: bool
    choices: _Choices | None
    max_length: int


def fields_of(struct: type[msgspec.Struct]) -> tuple[Field, ...]:
    """The fields of a struct in the order of their declaration, read from its type hints."""
    return tuple(_field(info) for info in msgspec.structs.fields(struct))


def _field(info: msgspec.structs.FieldInfo) -> Field:
    hint = info.type
    is_many = get_origin(hint) is tuple
    is_optional = NoneType in get_args(hint)
    if is_many or is_optional:
        (hint,) = (each for each in get_args(hint) if each not in (NoneType, ...))
    marker = None
    if get_origin(hint) is Annotated:
        hint, marker = get_args(hint)
    choices = hint if issubclass(hint, StrEnum) else None
    if isinstance(marker, MaxLength):
        field_type = FieldType.TEXT
    else:
        field_type = marker or (FieldType.CHOICE if choices else _BY_HINT[hint])
    max_length = marker.characters if isinstance(marker, MaxLength) else 0
    return Field(info.name, field_type, info.default, is_optional, is_many, choices, max_length)


def check_of(field: Field, label: str) -> Callable[[Any], object] | None:
    """What raises `InvalidArgumentError` for a value that is not well-formed; None if every value is.

    `label` names the field in messages. The value of an optional field must not be None.
    """
    match field.type:
        case FieldType.ID | FieldType.ROLE | FieldType.TYPE:
            return lambda text: parse_id(text, field=label)
        case FieldType.TEXT:
            return lambda text: validate_text(text, field=label, max_length=field.max_length)
        case FieldType.INSTANT:
            return lambda instant: _validate_instant(instant, field=label)
        case FieldType.SUBJECT:
            label_of_id = f"{label} id"
            return lambda subject: parse_id(subject.id, field=label_of_id)
        case FieldType.SCOPE:
            return _validate_scope
        case FieldType.RESOURCE:
            return lambda ref: _validate_ref(ref, label)
        case FieldType.NUMBER:
            return lambda number: _validate_number(number, field=label)
        case FieldType.FILES:
            return lambda text: validate_files(text, field=label)
        case _:
            return None


def validate_text(text: str, *, field: str, max_length: int) -> None:
    """Raises `InvalidArgumentError` (MALFORMED_FIELD) for text that is too long or cannot be stored."""
    if len(text) > max_length:
        raise malformed(field, f"has {len(text)} characters; at most {max_length} are kept")
    if "\x00" in text or (not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)):
        raise malformed(field, "has a character that is no text; leave out NUL and lone surrogates")


def validate_span(start: Instant | None, end: Instant | None, *, names: tuple[str, str]) -> None:
    """Raises `InvalidArgumentError` (MALFORMED_FIELD) if both are set and `end` is not later."""
    if start is not None and end is not None and start >= end:
        raise malformed(names[1], f"is not after {names[0]}; give a later time")


def _validate_instant(instant: Instant, *, field: str) -> None:
    if not MIN_INSTANT <= instant <= MAX_INSTANT:
        raise malformed(field, "is out of range; it must be in the years 1 to 9999")


def _validate_scope(scope: Scope) -> None:
    if scope.kind is not ScopeKind.PLATFORM:
        parse_id(scope.id, field=f"{scope.kind.value} id")
    elif scope.id:
        raise InvalidArgumentError(
            ErrorReason.MALFORMED_ID, "the scope platform has no id; leave it empty", field="scope"
        )


def _validate_number(number: int, *, field: str) -> None:
    if not 1 <= number <= MAX_NUMBER:
        raise malformed(field, f"is {number}; it must be a whole number from 1 to {MAX_NUMBER}")


def _validate_ref(ref: ResourceRef, label: str) -> None:
    parse_id(ref.type, field=f"{label} type")
    parse_id(ref.id, field=f"{label} id")
