"""Partial evaluation: the residual of rules once some facts are known, for plans."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from authz.domain.facts import FACTS, ComparedValues
from authz.domain.predicates import Predicate, all_of, any_of, negation
from authz.policy.compile import Clause, CompiledRules
from authz.policy.condition import Condition, conjunction
from authz.policy.situations import closure

_ALWAYS = Condition()


class Residual(msgspec.Struct, frozen=True):
    """It allows when any condition of `allows`, which is not empty, holds and none of `denies` does."""

    allows: frozenset[Condition]
    denies: frozenset[Condition]

    @property
    def is_unconditional(self) -> bool:
        """Whether it allows whatever else holds."""
        return _ALWAYS in self.allows and not self.denies

    @property
    def named(self) -> int:
        """The bits of the facts that the rules name."""
        return conjunction(*self.allows, *self.denies).named

    def predicate(self, values: ComparedValues) -> Predicate | None:
        """The same over the fields of a resource; None if it allows all of them."""
        parts = [negation(_predicate(each, values)) for each in sorted(self.denies)]
        if _ALWAYS not in self.allows:
            parts.insert(0, any_of(_predicate(each, values) for each in sorted(self.allows)))
        return all_of(parts) if parts else None


def residual_of(rules: CompiledRules, certain: int, possible: int) -> Residual | None:
    """The rules where all of `certain` and no others than `possible` hold; None if they never allow."""
    allows, denies = _open(rules.allows, certain, possible), _open(rules.denies, certain, possible)
    return None if not allows or _ALWAYS in denies else Residual(allows, denies)


def _open(clauses: Iterable[Clause], certain: int, possible: int) -> frozenset[Condition]:
    """The conditions that may hold, without what is known, and without those that imply another."""
    found = {
        Condition(condition.required & ~certain, condition.forbidden & possible)
        for condition in (clause.condition for clause in clauses)
        if not (condition.required & ~possible or condition.forbidden & certain)
    }
    for each in sorted(found):
        known = closure(each)
        if known is None or any(other.follows_from(known) for other in found - {each}):
            found.remove(each)
    return frozenset(found)


def _predicate(condition: Condition, values: ComparedValues) -> Predicate:
    parts = []
    for fact in FACTS:
        if condition.named & fact.bit:
            holds = fact.predicate(values)
            parts.append(holds if condition.required & fact.bit else negation(holds))
    return all_of(parts)
