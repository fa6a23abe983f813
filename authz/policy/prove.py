"""Proves invariants of a policy, or finds who breaks one and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from authz.policy.certificate import Certificate, ObligationProof, Question, invariants_digest, policy_digest
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


def never_cancelled() -> None:
    """For a proof that no call waits for: it is not cancelled."""


class Prover:
    """Searches for breaches, and keeps what it has found of each question: many obligations ask the same.

    For each obligation it calls `require_not_cancelled`, which raises to end the search.
    """

    def __init__(self, require_not_cancelled: Callable[[], object] = never_cancelled) -> None:
        self._require_not_cancelled = require_not_cancelled
        self.known: dict[Question, Condition | Refutation] = {}
        self.count = 0
        """The number of obligations so far."""

    def breaches(self, found: Iterable[Obligation]) -> tuple[Breach, ...]:
        """One breach for each invariant, rule and course that break."""
        breaches: dict[tuple[str, str | None, str], Breach] = {}
        for obligation in found:
            self._require_not_cancelled()
            self.count += 1
            question = (obligation.start, obligation.denies)
            facts = self.known.get(question)
            if facts is None:
                facts = self.known[question] = find_facts(*question)
            if isinstance(facts, Condition):
                key = (obligation.invariant.name, obligation.course_id, obligation.rule.source)
                breaches.setdefault(key, Breach(obligation, facts.required))
        return tuple(breaches.values())


def prove(
    policy: CompiledPolicy,
    invariants: Sequence[Invariant],
    require_not_cancelled: Callable[[], object] = never_cancelled,
) -> Proof:
    """Decide every invariant over all sets of roles, types, actions and combinations of facts. May take a
    minute: `require_not_cancelled` as for `Prover`."""
    prover = Prover(require_not_cancelled)
    breaches = prover.breaches(obligations(policy, invariants))
    if breaches:
        return Proof(breaches, None)
    certificate = Certificate(
        policy=policy_digest(policy),
        invariants=invariants_digest(invariants),
        obligations=prover.count,
        shown=tuple(
            ObligationProof(str(start), tuple(map(str, denies)), refutation)
            for (start, denies), refutation in prover.known.items()
            if isinstance(refutation, Refutation)
        ),
    )
    return Proof((), certificate)
