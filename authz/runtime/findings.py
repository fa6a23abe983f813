"""What is found about a server, and how bad it is."""

from __future__ import annotations

from enum import StrEnum
from functools import partial

import msgspec

from authz.domain.instants import DAY_US, Instant, to_datetime

SOON_US = 14 * DAY_US
"""What ends within this time is to be renewed."""


class Level(StrEnum):
    """How bad a finding is. A note needs nothing to be done."""

    WRONG = "wrong"
    UNSAFE = "unsafe"
    NOTE = "note"


class Finding(msgspec.Struct, frozen=True):
    """What was found, and what to do about it."""

    level: Level
    text: str


wrong, unsafe, note = (partial(Finding, level) for level in Level)


def date_of(time: Instant) -> str:
    """The day of an instant, in UTC."""
    return str(to_datetime(time).date())
