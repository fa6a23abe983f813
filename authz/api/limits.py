"""Limits the rate and the calls in flight of each caller, as the operator configured them."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from authz.access.authentication import Transport
from authz.access.watched_file import WatchedFile
from authz.api.call import Call, CallKind
from authz.domain.errors import ErrorReason, OverloadedError, malformed
from authz.domain.ids import Subject, SubjectType, parse_subject
from authz.domain.instants import format_duration
from authz.domain.toml import parse_toml
from authz.telemetry.metrics import SHED_CALLS

_MIN_SWEEP_SIZE = 4096
_RETRY_IN_FLIGHT_S = 0.1
_SLACK = 0.001
"""Tolerated fraction of the interval by which a call may come early, because float sums are inexact."""
_KINDS = {str(kind): kind for kind in CallKind}
_RATE, _IN_FLIGHT = "rate", "in_flight"
_Holder: TypeAlias = Subject | str
"""A caller, or the address of the connection if the caller is unknown."""


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many calls of one kind a caller may make. None is no limit."""

    per_second: Annotated[float, Meta(ge=1e-6, le=1e9)] | None = None
    """The average number of calls per second. Bounded: TOML can write `inf`, which is no count of calls."""
    burst: Annotated[int, Meta(ge=1)] | None = None
    """The number of calls that may come at once after a pause. Default: those of a second, at least one."""
    in_flight: Annotated[int, Meta(ge=1)] | None = None


class _NamedLimit(msgspec.Struct, frozen=True):
    """A limit, with its key in the file."""

    name: str
    limit: Limit


Limits: TypeAlias = Mapping[tuple[Subject | None, CallKind], _NamedLimit]
"""The limits of each caller with its own limits; the limits of all other callers under None."""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    each: dict[str, Any] = {}
    callers: dict[str, dict[str, Any]] = {}


def parse_limits(content: bytes) -> Limits:
    """The limits of a file: `[each.<kind>]` and `[callers."service:<id>".<kind>]`.

    Raises `InvalidArgumentError`.
    """
    try:
        file = msgspec.convert(parse_toml(content.decode()), _File)
    except msgspec.ValidationError as error:
        tables = '`[each.<kind>]` or `[callers."service:<id>".<kind>]`'
        raise malformed("it", f"has what is no table of limits: {error}; write {tables}") from None
    except ValueError as error:
        raise malformed("it", f"is not TOML: {error}") from None
    limits: dict[tuple[Subject | None, CallKind], _NamedLimit] = {
        (None, kind): limit for kind, limit in _by_kind("each", file.each).items()
    }
    for caller, by_kind in file.callers.items():
        subject = parse_subject(caller, field="callers", form="service:notebooks")
        if subject.type is not SubjectType.SERVICE:
            raise malformed("callers", f"has `{caller}`, a person; a caller is a program: `service:<id>`")
        for kind, limit in _by_kind(f'callers."{caller}"', by_kind).items():
            limits[subject, kind] = limit
    return limits


def _by_kind(table: str, given: Mapping[str, Any]) -> Mapping[CallKind, _NamedLimit]:
    limits = {}
    for kind, fields in given.items():
        name = f"{table}.{kind}"
        if kind not in _KINDS:
            raise malformed(name, f"is no kind of call; write one of {', '.join(_KINDS)}")
        try:
            limit = msgspec.convert(fields, Limit)
        except msgspec.ValidationError as error:
            problem = f"is no limit: {error}; write `per_second`, `burst` or `in_flight`, above 0"
            raise malformed(name, problem) from None
        if limit.burst is not None and limit.per_second is None:
            raise malformed(f"{name}.burst", "needs `per_second`; add it")
        limits[_KINDS[kind]] = _NamedLimit(name, limit)
    return limits


class Limiter:
    """Counts the calls of each caller in this process. For the event loop.

    Uses the generic cell rate algorithm: stores, for each caller and kind, the time at which its calls so far
    would have been due at the rate. Source: ITU-T I.371, https://brandur.org/rate-limiting
    """

    def __init__(self, file: WatchedFile[Limits], clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._limits: Limits = {}
        self._due: dict[tuple[_Holder, CallKind], float] = {}
        self._sweep_at = _MIN_SWEEP_SIZE
        self._in_flight: Counter[tuple[_Holder, CallKind]] = Counter()
        for kind in CallKind:
            SHED_CALLS.labels(kind, _RATE)
            SHED_CALLS.labels(kind, _IN_FLIGHT)

    def admit(self, call: Call) -> None:
        """Count a call, which is in flight until its transport has sent the answer.

        Raises `OverloadedError` (LIMIT_EXCEEDED), which names the limit, and does not count the refused call.
        """
        limits, caller, kind = self._file.value(), call.principal.caller, call.method.kind
        if limits is not self._limits:
            # The new rate does not apply to earlier calls.
            self._limits, self._due = limits, {}
        named = limits.get((caller, kind)) or limits.get((None, kind))
        if named is None:
            return
        key = (_address(call.transport) if caller is None else caller, kind)
        if named.limit.in_flight is not None and self._in_flight[key] >= named.limit.in_flight:
            raise _exceeded(key, named, _IN_FLIGHT, _RETRY_IN_FLIGHT_S)
        if named.limit.per_second is not None:
            self._pace(key, named, named.limit.per_second)
        if named.limit.in_flight is not None:
            self._in_flight[key] += 1
            call.transport.when_sent(partial(self._release, key))

    def _pace(self, key: tuple[_Holder, CallKind], named: _NamedLimit, per_second: float) -> None:
        now, burst = self._clock(), named.limit.burst or max(1, math.floor(per_second))
        due = max(self._due.get(key, now), now)
        wait_s = due - now - (burst - 1 + _SLACK) / per_second
        if wait_s > 0:
            raise _exceeded(key, named, _RATE, wait_s)
        self._due[key] = due + 1 / per_second
        if len(self._due) >= self._sweep_at:
            self._due = {each: due for each, due in self._due.items() if due > now}
            self._sweep_at = max(_MIN_SWEEP_SIZE, 2 * len(self._due))

    def _release(self, key: tuple[_Holder, CallKind]) -> None:
        self._in_flight[key] -= 1
        if not self._in_flight[key]:
            del self._in_flight[key]


def _address(transport: Transport) -> str:
    """The address of the client without its port, because a new connection is not a new client."""
    return transport.connection().rpartition(":")[0]


def _exceeded(
    key: tuple[_Holder, CallKind], named: _NamedLimit, reason: str, retry_after_s: float
) -> OverloadedError:
    holder, kind = key
    who = f"`{holder}`" if holder else "the clients at the Unix socket"
    if reason == _RATE:
        rate = Decimal(str(named.limit.per_second)).normalize()
        problem = f"more than {rate:f} {kind} a second"
        name = f"{named.name}.per_second"
    else:
        problem = f"more than {named.limit.in_flight} {kind} in flight"
        name = f"{named.name}.in_flight"
    SHED_CALLS.labels(kind, reason).inc()
    retry_after_ms = max(1, math.ceil(retry_after_s * 1000))
    return OverloadedError(
        f"{problem} of {who}, which `{name}` in AUTHZ_LIMITS_FILE forbids;"
        f" try again in {format_duration(retry_after_ms * 1000)}, or ask the operator for more",
        reason=ErrorReason.LIMIT_EXCEEDED,
        retry_after_s=retry_after_ms / 1000,
        limit=name,
    )
