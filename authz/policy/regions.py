"""All facts for which a condition holds and others do not, as few conditions as they fit in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set

from authz.policy.condition import Condition, conjunction
from authz.policy.search import bits, ways_to_fail
from authz.policy.situations import closure


def regions(start: Condition, denies: Sequence[Condition]) -> Iterator[Condition]:
    """Conditions that cover exactly the facts that agree with `start` and with which no deny holds.

    No two of them hold together. Each names what follows from it, too.
    """
    known = closure(start)
    if known is None:
        return
    for deny in denies:
        if deny.contradicts(known):
            continue
        escaped = known
        for way in ways_to_fail(deny, known):
            yield from regions(conjunction(escaped, way), denies)
            # The next ways are for what this one leaves out.
            escaped = conjunction(escaped, Condition(way.forbidden, way.required))
        return
    yield known


def simplest(found: Iterable[Condition]) -> list[Condition]:
    """Conditions that cover the same facts: fewer, shorter, in the order of the facts.

    Joins two that differ in one fact only, drops what another covers, and leaves out facts that follow.
    """
    kept = set(found)
    while True:
        more = _largest(kept.union(*(_joined(each, kept) for each in kept)))
        if more == kept:
            return sorted(map(_shortest, kept))
        kept = more


def _joined(one: Condition, others: Set[Condition]) -> Iterator[Condition]:
    """One condition with each of the others that differs in one fact only: both without that fact."""
    for bit in bits(one.named):
        if Condition(one.required ^ bit, one.forbidden ^ bit) in others:
            yield Condition(one.required & ~bit, one.forbidden & ~bit)


def _largest(conditions: Set[Condition]) -> set[Condition]:
    """Those that no other one covers."""
    found: list[Condition] = []
    for condition in sorted(conditions, key=lambda each: each.named.bit_count()):
        required, forbidden = ~condition.required, ~condition.forbidden
        if all(each.required & required or each.forbidden & forbidden for each in found):
            found.append(condition)
    return set(found)


def _shortest(condition: Condition) -> Condition:
    """Without the facts that follow from the others."""
    meaning = closure(condition)
    for bit in bits(condition.named):
        less = Condition(condition.required & ~bit, condition.forbidden & ~bit)
        if closure(less) == meaning:
            condition = less
    return condition
