"""Times, ids, scopes, enums and tokens between protobuf and the domain."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import Any, Generic, TypeVar

from google.protobuf import duration_pb2, timestamp_pb2
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message

from authz.domain.consistency import FULLY_CONSISTENT, MINIMIZE_LATENCY, Consistency, at_least_as_fresh
from authz.domain.errors import ErrorReason, InvalidArgumentError, malformed
from authz.domain.ids import (
    PLATFORM,
    Scope,
    ScopeKind,
    Subject,
    SubjectType,
    course_scope,
    parse_id,
    session_scope,
)
from authz.domain.instants import MAX_INSTANT, Instant
from authz.v1 import common_pb2 as pb

EnumT = TypeVar("EnumT", bound=StrEnum)

_MAX_QUOTED_LENGTH = 64


def missing(field: str) -> InvalidArgumentError:
    """The error for a field that is needed and absent."""
    return InvalidArgumentError(ErrorReason.MISSING_FIELD, f"{field} is missing; set it", field=field)


def ascii_excerpt(text: str) -> str:
    """The start of an input as ASCII, safe to show in a message or in metadata whatever the input holds."""
    return ascii(text[:_MAX_QUOTED_LENGTH])[1:-1]


class WireEnum(Generic[EnumT]):
    """An enum of the domain in messages: the protobuf name of a member is a prefix and its own name."""

    def __init__(self, wire: EnumDescriptor, members: type[EnumT]) -> None:
        """`wire` is the enum of protobuf, whose number 0 stands for a field that is absent.

        Raises `TypeError` unless it has every member.
        """
        names = {value.number: value.name for value in wire.values}
        prefix = names.pop(0).removesuffix("UNSPECIFIED")
        self._members = {number: members[name.removeprefix(prefix)] for number, name in names.items()}
        self._numbers = {member: number for number, member in self._members.items()}
        for member in members:
            if member not in self._numbers:  # every call that sends it would fail
                problem = f"the enum {wire.full_name} has no {prefix}{member.name}"
                raise TypeError(f"{problem}; add it in protos/{wire.file.name}, and run `make protos`")

    def number(self, member: EnumT | None) -> Any:
        """The number of a member, 0 for none."""
        return 0 if member is None else self._numbers[member]

    def parse(self, number: int, *, field: str, default: EnumT | None = None) -> EnumT:
        """The member with a number; `default` for 0 if there is one. Raises `InvalidArgumentError`."""
        if number in self._members:
            return self._members[number]
        if number:
            known = f"known are 1 to {max(self._members)}"
            raise malformed(field, f"has the unknown value {number}; {known}")
        if default is None:
            raise missing(field)
        return default

    def received(self, number: int) -> EnumT | str:
        """The member with a number that a server sent. 0, for an absent field, is empty text; a number that
        only a later release knows is text such as `UNKNOWN_17`."""
        return self._members.get(number) or (f"UNKNOWN_{number}" if number else "")


def parse_time(message: Message, field_name: str, *, field: str) -> Instant | None:
    """A Timestamp field of a message in microseconds, truncated; None when absent."""
    if not message.HasField(field_name):
        return None
    stamp: timestamp_pb2.Timestamp = getattr(message, field_name)
    try:
        return stamp.ToMicroseconds()
    except ValueError:
        raise malformed(field, "is not a time between the years 1 and 9999") from None


def time_in(message: Message, field_name: str) -> dt.datetime | None:
    """A Timestamp field of a message in UTC; None when absent."""
    if not message.HasField(field_name):
        return None
    time: dt.datetime = getattr(message, field_name).ToDatetime(dt.UTC)
    return time


def time_message(instant: Instant | None) -> timestamp_pb2.Timestamp | None:
    """A time as a message. None, which leaves a field absent, for none and for one after the year 9999, such
    as that at which a window closes: no message can hold it."""
    if instant is None or instant > MAX_INSTANT:
        return None
    stamp = timestamp_pb2.Timestamp()
    stamp.FromMicroseconds(instant)
    return stamp


def duration_message(duration_us: int) -> duration_pb2.Duration:
    """A length of time as a message."""
    duration = duration_pb2.Duration()
    duration.FromMicroseconds(duration_us)
    return duration


SUBJECT_TYPES = {
    pb.SUBJECT_TYPE_USER: SubjectType.USER,
    pb.SUBJECT_TYPE_SERVICE: SubjectType.SERVICE,
}
"""By number. A number that is not here means that the type is absent or unknown."""
_SUBJECT_NUMBERS = {value: number for number, value in SUBJECT_TYPES.items()}


def parse_subject(message: Message, field_name: str, *, field: str) -> Subject:
    """A Subject field of a message; raises when absent."""
    if not message.HasField(field_name):
        raise missing(field)
    return parse_subject_message(getattr(message, field_name), field=field)


def parse_subject_message(subject: pb.Subject, *, field: str) -> Subject:
    """A Subject message."""
    kind = SUBJECT_TYPES.get(subject.type)
    if kind is None:
        raise malformed(
            f"{field}.type", f"is {subject.type}; set it to SUBJECT_TYPE_USER or SUBJECT_TYPE_SERVICE"
        )
    return Subject(kind, parse_id(subject.id, field=f"{field}.id"))


def subject_message(subject: Subject) -> pb.Subject:
    """A subject as a message."""
    return pb.Subject(type=_SUBJECT_NUMBERS[subject.type], id=subject.id)


def parse_scope(message: Message, field_name: str, *, field: str) -> Scope:
    """A Scope field of a message; raises when absent or empty."""
    return parse_scope_message(getattr(message, field_name), field=field)


def parse_scope_message(scope: pb.Scope, *, field: str) -> Scope:
    """A Scope; raises when empty."""
    match scope.WhichOneof("scope"):
        case "platform":
            return PLATFORM
        case "course_id":
            return course_scope(parse_id(scope.course_id, field=f"{field}.course_id"))
        case "session_id":
            return session_scope(parse_id(scope.session_id, field=f"{field}.session_id"))
        case _:
            raise missing(field)


def scope_message(scope: Scope) -> pb.Scope:
    """A scope as a message."""
    if scope.kind is ScopeKind.PLATFORM:
        return pb.Scope(platform=pb.Platform())
    if scope.kind is ScopeKind.COURSE:
        return pb.Scope(course_id=scope.id)
    return pb.Scope(session_id=scope.id)


def parse_optional_id(text: str, *, field: str) -> str | None:
    """An id, or None for the empty string, which in protobuf means that the field is absent."""
    return parse_id(text, field=field) if text else None


def parse_consistency(message: pb.Consistency) -> Consistency:
    """What a caller demands. Never raises: `ConsistencyGate` reads the token."""
    match message.WhichOneof("requirement"):
        case "at_least_as_fresh":
            return at_least_as_fresh(message.at_least_as_fresh.token)
        case "fully_consistent":
            return FULLY_CONSISTENT
        case _:
            return MINIMIZE_LATENCY
