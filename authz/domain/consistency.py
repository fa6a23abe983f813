"""How fresh the state must be that an answer is computed from."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Freshness(StrEnum):
    """What a caller demands of the state."""

    MINIMIZE_LATENCY = "MINIMIZE_LATENCY"
    AT_LEAST_AS_FRESH = "AT_LEAST_AS_FRESH"
    FULLY_CONSISTENT = "FULLY_CONSISTENT"


class Consistency(msgspec.Struct, frozen=True, gc=False):
    """The demand of one call. `token` is an encoded `ConsistencyToken`, for AT_LEAST_AS_FRESH only."""

    freshness: Freshness
    token: str = ""


MINIMIZE_LATENCY = Consistency(Freshness.MINIMIZE_LATENCY)
"""The default: the state at hand."""
FULLY_CONSISTENT = Consistency(Freshness.FULLY_CONSISTENT)
"""A state that holds everything committed before the call came."""


def at_least_as_fresh(token: str) -> Consistency:
    """The state of an encoded token, or a later one of the same history."""
    return Consistency(Freshness.AT_LEAST_AS_FRESH, token)
