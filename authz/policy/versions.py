"""The files of a version of the policy: compiled, proved, and with their tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from authz.domain.entities import PolicyVersion
from authz.domain.errors import PolicyError, PolicyFault, UnusablePolicyError
from authz.domain.facts import fact_names
from authz.domain.files import FORMAT, read_files
from authz.domain.vocabulary import Vocabulary
from authz.policy.cases import CaseFile, read_tests
from authz.policy.certificate import Certificate
from authz.policy.compile import CompiledPolicy
from authz.policy.invariants import INVARIANTS_FILE, Invariant, read_invariants
from authz.policy.load import compile_files
from authz.policy.prove import Breach, Proof, never_cancelled, prove

T = TypeVar("T")
_compile_published = partial(compile_files, is_published=True)


class ProvedPolicy(msgspec.Struct, frozen=True):
    """A policy without faults, why it keeps its invariants, and its tests."""

    policy: CompiledPolicy
    invariants: tuple[Invariant, ...]
    certificate: Certificate
    tests: tuple[CaseFile, ...]


def prove_files(
    files: Mapping[str, str], require_not_cancelled: Callable[[], object] = never_cancelled
) -> ProvedPolicy:
    """Compile and prove a policy, as `prove`. Raises `PolicyError` as `load_files`, or else with every rule
    that breaks an invariant."""
    policy, invariants, tests = load_files(files)
    certificate = require_certificate(prove(policy, invariants, require_not_cancelled))
    return ProvedPolicy(policy, invariants, certificate, tests)


def load_files(
    files: Mapping[str, str],
) -> tuple[CompiledPolicy, tuple[Invariant, ...], tuple[CaseFile, ...]]:
    """A policy, its invariants and its tests. Raises `PolicyError` with every fault of the rules, by whose
    names the others are read, or else with those of the invariants and the tests together."""
    policy = compile_files(files)
    faults: list[PolicyFault] = []
    invariants = _read(read_invariants, files, policy, faults)
    if not (invariants or faults):
        what = "has no invariant" if INVARIANTS_FILE in files else "is missing"
        text = f"{what}, so nothing would be proved; copy the one of the active version"
        faults.append(PolicyFault(INVARIANTS_FILE, 1, 1, text))
    tests = _read(read_tests, files, policy, faults)
    if faults:
        raise PolicyError(tuple(faults))
    return policy, invariants, tests


def _read(
    reader: Callable[[Mapping[str, str], Vocabulary], tuple[T, ...]],
    files: Mapping[str, str],
    policy: CompiledPolicy,
    faults: list[PolicyFault],
) -> tuple[T, ...]:
    try:
        return reader(files, policy.vocabulary)
    except PolicyError as error:
        faults += error.faults
        return ()


def require_certificate(proof: Proof) -> Certificate:
    """The certificate of a proof. Raises `PolicyError` with every rule that breaks an invariant."""
    require_unbroken(proof.breaches)
    assert proof.certificate is not None  # noqa: S101  there is one without breaches
    return proof.certificate


def require_unbroken(breaches: Sequence[Breach]) -> None:
    """Raise `PolicyError` with every rule that breaks an invariant."""
    if breaches:
        raise PolicyError(tuple(sorted(map(_fault_of, breaches))))


def _fault_of(breach: Breach) -> PolicyFault:
    obligation = breach.obligation
    file, line = obligation.rule.source.rsplit(":", 1)
    facts = " & ".join(fact_names(breach.facts)) or "no fact holds"
    text = (
        f"breaks the invariant `{obligation.invariant.name}` ({obligation.invariant.says}):"
        f" it allows {obligation.action} on {obligation.type_name} to {' and '.join(obligation.roles)}"
        f" when {facts}; change the row, or what the invariant covers;"
        " for an example, run `authz policy prove` on this policy"
    )
    return PolicyFault(file, int(line), 1, text)


def compile_version(
    version: PolicyVersion, compile_: Callable[[dict[str, str]], CompiledPolicy] = _compile_published
) -> CompiledPolicy:
    """Compile the files of a version. Raises `UnusablePolicyError` if this release cannot read it."""
    if version.format != FORMAT:
        raise UnusablePolicyError(
            f"{version.key} has format {version.format}, and this server reads format {FORMAT}"
        )
    try:
        return compile_(read_files(version.files))
    except PolicyError as error:
        raise UnusablePolicyError(f"this server cannot read {version.key}: {error.faults[0]}") from None
