"""What a server sends, as the caller of a client has it: times as datetimes, names as members of enums."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from enum import StrEnum
from typing import TypeVar

from google.protobuf.message import Message

MemberT = TypeVar("MemberT", bound=StrEnum)


class Members(dict[int, MemberT | str]):
    """Maps numbers of a protobuf enum to members of an enum. 0, for an absent field, gives empty text. A
    number that only a later release knows gives text such as `UNKNOWN_17`."""

    def __init__(self, enum: type[MemberT], numbers: Iterable[tuple[str, int]], prefix: str) -> None:
        names = ((number, name.removeprefix(prefix)) for name, number in numbers if number)
        super().__init__((number, enum(name)) for number, name in names)

    def __missing__(self, number: int) -> str:
        return f"UNKNOWN_{number}" if number else ""


def time_in(message: Message, field_name: str) -> dt.datetime | None:
    """A Timestamp field of a message in UTC; None when absent."""
    if not message.HasField(field_name):
        return None
    time: dt.datetime = getattr(message, field_name).ToDatetime(dt.UTC)
    return time
