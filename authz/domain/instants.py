"""Time as an integer: microseconds since the Unix epoch, UTC.

One representation from the API to the database row, so that SQLite, PostgreSQL and Python compare times in
the same way, and no time zone or rounding can move a boundary.
"""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from typing import TypeAlias

from authz.domain.errors import malformed

Instant: TypeAlias = int
"""Microseconds since 1970-01-01T00:00:00Z."""

US_PER_S = 1_000_000
DAY_US = 86_400 * US_PER_S
MIN_INSTANT: Instant = -62_135_596_800 * US_PER_S
"""0001-01-01T00:00:00Z, the minimum of RFC 3339 and `google.protobuf.Timestamp`."""
MAX_INSTANT: Instant = 253_402_300_800 * US_PER_S - 1
"""9999-12-31T23:59:59.999999Z, their maximum in microseconds."""

_FORM = re.compile(r"(\d{4}-?\d\d-?\d\d)(?:[T ].+|(Z|[+-]\d\d(?::?\d\d)?)?)", re.ASCII)
"""`fromisoformat` alone takes any character before a time: `2026-09-01+02:00` for two o'clock."""
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def from_datetime(value: dt.datetime) -> Instant:
    """The instant of a datetime. Raises `ValueError` if it has no time zone."""
    if value.tzinfo is None:
        raise ValueError("a datetime needs a time zone")
    delta = value - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * US_PER_S + delta.microseconds


def to_datetime(instant: Instant) -> dt.datetime:
    """The datetime of an instant, in UTC."""
    return _EPOCH + dt.timedelta(microseconds=instant)


def parse_instant(text: str, *, field: str, zone: dt.tzinfo = dt.UTC) -> Instant:
    """Parse RFC 3339, or a date, which means midnight. `zone` is that of a text without one. A date may have
    one, as those of XML: `2026-09-01+02:00`.

    Raises `InvalidArgumentError` (MALFORMED_FIELD) that names `field`, also for an instant outside the years
    1 to 9999 in UTC.
    """
    try:
        value = _datetime_of(text)
    except ValueError:
        raise malformed(field, f"`{text}` is not a time; write it like `2026-09-01T08:00:00Z`") from None
    if value.tzinfo is None:
        value = value.replace(tzinfo=zone)
    instant = from_datetime(value)
    if not MIN_INSTANT <= instant <= MAX_INSTANT:
        raise malformed(field, f"`{text}` is out of range; it must be in the years 1 to 9999 in UTC")
    return instant


def _datetime_of(text: str) -> dt.datetime:
    upper = text.upper()  # RFC 3339 allows `t` and `z`, and `fromisoformat` only `Z`
    form = _FORM.fullmatch(upper)
    if form is None:
        raise ValueError(text)
    return dt.datetime.fromisoformat(f"{form[1]}T00:00{form[2]}" if form[2] else upper)


def format_duration(duration_us: int) -> str:
    """A length of time in seconds, with all its digits: `900 s`, `2592000 s`."""
    return f"{Decimal(duration_us) / US_PER_S:f} s"


def format_instant(instant: Instant) -> str:
    """RFC 3339 in UTC with `Z`. Microseconds appear only if they are not zero."""
    return to_datetime(instant).isoformat().replace("+00:00", "Z")
