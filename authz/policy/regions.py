"""All facts for which a condition holds and others do not, as few conditions as they fit in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from authz.policy.condition import Condition, conjunction
from authz.policy.search import ways_to_fail
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
        joined = {
            Condition(a.required & b.required, a.forbidden & b.forbidden)
            for a in kept
            for b in kept
            if _differ_in_one_fact(a, b)
        }
        more = _largest(kept | joined)
        if more == kept:
            return sorted(map(_shortest, kept))
        kept = more


def _differ_in_one_fact(a: Condition, b: Condition) -> bool:
    differing = a.required & b.forbidden | a.forbidden & b.required
    return (
        differing.bit_count() == 1
        and a.required & ~differing == b.required & ~differing
        and a.forbidden & ~differing == b.forbidden & ~differing
    )


def _largest(conditions: set[Condition]) -> set[Condition]:
    return {c for c in conditions if not any(other != c and other.follows_from(c) for other in conditions)}


def _shortest(condition: Condition) -> Condition:
    """Without the facts that follow from the others."""
    meaning = closure(condition)
    for bit in (1 << place for place in range(condition.named.bit_length())):
        less = Condition(condition.required & ~bit, condition.forbidden & ~bit)
        if closure(less) == meaning:
            condition = less
    return condition
