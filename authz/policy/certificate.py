"""What a proof leaves behind, and a checker that accepts it without searching.

The checker shares no search with the prover: it goes through the obligations of the policy and looks up, for
each, why no facts break it; and it verifies each such reason step by step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from authz.domain.errors import FailedPreconditionError, precondition_failed
from authz.policy.compile import CompiledPolicy
from authz.policy.condition import Condition, conjunction, parse_condition
from authz.policy.invariants import Invariant
from authz.policy.obligations import obligations
from authz.policy.search import Refutation, ways_to_fail
from authz.policy.situations import closure

Question: TypeAlias = tuple[Condition, tuple[Condition, ...]]
"""The start and the denies of an obligation: many obligations ask the same."""


class ObligationProof(msgspec.Struct, frozen=True):
    """That no facts agree with `start` and escape every deny, and why."""

    start: str
    denies: tuple[str, ...]
    because: Refutation


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """That the invariants of a digest hold for the policy of a digest, over so many obligations."""

    policy: str
    invariants: str
    obligations: int
    shown: tuple[ObligationProof, ...]


def policy_digest(policy: CompiledPolicy) -> str:
    """A digest of what decides: roles, types, inheritance and rules, wherever they are written."""
    bases = {role: sorted(policy.inherited[role]) for role in policy.vocabulary.roles}
    rules = [rule.fields for rule in policy.rules]
    return _digest((policy.vocabulary, bases, rules))


def invariants_digest(invariants: Sequence[Invariant]) -> str:
    """A digest of the invariants and of what their names stand for in a policy."""
    return _digest(list(invariants))


def check_certificate(
    certificate: Certificate, policy: CompiledPolicy, invariants: Sequence[Invariant]
) -> None:
    """Raise `FailedPreconditionError` unless it shows that the invariants hold for the policy."""
    if certificate.policy != policy_digest(policy):
        raise _rejected("is of another policy; prove this one")
    if certificate.invariants != invariants_digest(invariants):
        raise _rejected("is of other invariants; prove these")
    verified: set[Question] = set()
    for shown in certificate.shown:
        start, denies = parse_condition(shown.start), tuple(map(parse_condition, shown.denies))
        if not _follows(start, denies, shown.because):
            raise _rejected(f"does not show that `{shown.start}` is denied; prove the policy again")
        verified.add((start, denies))
    count = 0
    for obligation in obligations(policy, invariants):
        count += 1
        if (obligation.start, obligation.denies) not in verified:
            name, source = obligation.invariant.name, obligation.rule.source
            raise _rejected(f"says nothing of {source} under `{name}`; prove the policy again")
    if count != certificate.obligations:
        raise _rejected(f"is over {certificate.obligations} obligations, not {count}; prove the policy again")


def _follows(start: Condition, denies: Sequence[Condition], because: Refutation) -> bool:
    known = closure(start)
    if known is None:
        return True
    if because.deny is None or not 0 <= because.deny < len(denies):
        return False
    ways = tuple(ways_to_fail(denies[because.deny], known))
    return len(ways) == len(because.escapes) and all(
        _follows(conjunction(known, way), denies, escape)
        for way, escape in zip(ways, because.escapes, strict=True)
    )


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def _rejected(problem: str) -> FailedPreconditionError:
    return precondition_failed(f"the certificate {problem}")
