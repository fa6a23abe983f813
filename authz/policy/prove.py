"""Proves invariants of a policy, or finds who breaks one and how."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from authz.policy.certificate import Certificate, Question, Shown, invariants_digest, policy_digest
from authz.policy.compile import CompiledPolicy
from authz.policy.condition import Condition
from authz.policy.invariants import Invariant
from authz.policy.obligations import Obligation, obligations
from authz.policy.search import Refutation, find_facts


class Breach(msgspec.Struct, frozen=True):
    """An invariant that does not hold: where exactly `facts` hold, the obligation's rule decides."""

    obligation: Obligation
    facts: int


class Proof(msgspec.Struct, frozen=True):
    """One breach for each invariant, rule and course that break; a certificate if there is none."""

    breaches: tuple[Breach, ...]
    certificate: Certificate | None


def prove(policy: CompiledPolicy, invariants: Sequence[Invariant]) -> Proof:
    """Decide every invariant over all sets of roles, types, actions and combinations of facts."""
    known: dict[Question, Condition | Refutation] = {}
    breaches: dict[tuple[str, str | None, str], Breach] = {}
    count = 0
    for obligation in obligations(policy, invariants):
        count += 1
        question = (obligation.start, obligation.denies)
        found = known.get(question)
        if found is None:
            found = known[question] = find_facts(*question)
        if isinstance(found, Condition):
            key = (obligation.invariant.name, obligation.course_id, obligation.rule.source)
            breaches.setdefault(key, Breach(obligation, found.required))
    if breaches:
        return Proof(tuple(breaches.values()), None)
    certificate = Certificate(
        policy=policy_digest(policy),
        invariants=invariants_digest(invariants),
        obligations=count,
        shown=tuple(
            Shown(str(start), tuple(map(str, denies)), refutation)
            for (start, denies), refutation in known.items()
            if isinstance(refutation, Refutation)
        ),
    )
    return Proof((), certificate)
