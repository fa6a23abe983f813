"""Finds facts for which an allow rule decides: its condition holds, and that of no deny rule does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from authz.policy.condition import Condition, conjunction
from authz.policy.situations import closure


class Refutation(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """Why no facts are found: whatever they are, a deny rule holds, or they cannot be so together.

    `deny` is the place of a deny among those given. To escape it, one of its facts must be otherwise;
    `escapes` refutes each such way in the order of `ways_to_fail`. Without a `deny`, the facts contradict
    each other as they are.
    """

    deny: int | None = None
    escapes: tuple[Refutation, ...] = ()


CONTRADICTION = Refutation()


def ways_to_fail(deny: Condition, known: Condition) -> Iterator[Condition]:
    """Each way in which the condition of a deny may not hold, where what is known does not rule it out."""
    for bit in bits(deny.required & ~known.required):
        yield Condition(forbidden=bit)
    for bit in bits(deny.forbidden & ~known.forbidden):
        yield Condition(required=bit)


def find_facts(start: Condition, denies: Sequence[Condition]) -> Condition | Refutation:
    """Facts that agree with `start` and with which no deny holds, else why there are none.

    Facts that the result does not name do not matter: let them not hold. Exhaustive: each deny is escaped in
    every way that is left, the one with the fewest ways first.
    """
    known = closure(start)
    if known is None:
        return CONTRADICTION
    pending = [
        (len(ways), place, ways)
        for place, deny in enumerate(denies)
        if not deny.contradicts(known)
        for ways in (tuple(ways_to_fail(deny, known)),)
    ]
    if not pending:
        return known
    _, place, ways = min(pending)
    escapes = []
    for way in ways:
        found = find_facts(conjunction(known, way), denies)
        if isinstance(found, Condition):
            return found
        escapes.append(found)
    return Refutation(place, tuple(escapes))


def bits(mask: int) -> Iterator[int]:
    """Each bit of a mask, the lowest first."""
    while mask:
        bit = mask & -mask
        yield bit
        mask ^= bit
