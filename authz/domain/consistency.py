"""How fresh the state must be that an answer is computed from."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Freshness(StrEnum):
    """How fresh a caller requires the state to be."""

    MINIMIZE_LATENCY = "MINIMIZE_LATENCY"
    AT_LEAST_AS_FRESH = "AT_LEAST_AS_FRESH"
    FULLY_CONSISTENT = "FULLY_CONSISTENT"


class Consistency(msgspec.Struct, frozen=True, gc=False):
    """The requirement of one call. `token` is an encoded `ConsistencyToken`, only for AT_LEAST_AS_FRESH."""

    freshness: Freshness
    token: str = ""


MINIMIZE_LATENCY = Consistency(Freshness.MINIMIZE_LATENCY)
"""The default: the newest state of the replica."""
FULLY_CONSISTENT = Consistency(Freshness.FULLY_CONSISTENT)
"""A state with everything committed before the call."""


def at_least_as_fresh(token: str) -> Consistency:
    """Require the state of an encoded token, or a later state of the same history."""
    return Consistency(Freshness.AT_LEAST_AS_FRESH, token)
