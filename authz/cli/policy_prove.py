"""`authz policy prove`: prove the invariants of a policy, or show who breaks one and how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from authz.cli.command import Context, on_server
from authz.cli.options import Folder, PolicyCourse, Verbose, Version
from authz.cli.output import FOUND_EXIT_CODE, print_json
from authz.cli.policy_report import counted, most_common
from authz.cli.policy_source import PolicyFiles, load_in_course, read_policy
from authz.domain.errors import escaped

if TYPE_CHECKING:
    from authz.policy.certificate import Certificate
    from authz.policy.compile import CompiledPolicy
    from authz.policy.counterexample import Counterexample
    from authz.policy.invariants import Invariant
    from authz.policy.obligations import Obligation
    from authz.policy.prove import Breach, Proof

_MAX_SHOWN = 3
"""Rows of a broken invariant, and invariants with a test, unless all are asked for."""


@on_server()
def prove(
    context: Context,
    folder: Folder = None,
    course: PolicyCourse = None,
    certificate: Annotated[Path | None, typer.Option(help="Write the certificate to this file.")] = None,
    check: Annotated[Path | None, typer.Option(help="Check this certificate instead of proving.")] = None,
    served: Annotated[
        bool, typer.Option("--served", help="Check the certificate that the server has of --version.")
    ] = False,
    version: Version = None,
    verbose: Verbose = False,
) -> None:
    """Prove the invariants for all roles, types, actions and facts. Exit code: 0 proved, 1 broken.

    With --course, of the active policy of the platform together with that of the course.
    """
    from authz.policy.prove import prove as prove_invariants

    source = read_policy(context, folder, version, course)
    if served and not source.number:
        raise ValueError("--served is for a version on the server: `--version active`, or a number")
    policy, invariants = _load(context, source, course)
    if check is not None:
        _check(context, _read_certificate(check.read_bytes(), f"`{check}`"), policy, invariants)
        return
    if served:
        _check(context, _served_certificate(context, source.number, course), policy, invariants)
        return
    proof = prove_invariants(policy, invariants)
    if proof.certificate is not None and certificate is not None:
        certificate.write_bytes(msgspec.json.encode(proof.certificate))
    _print(proof, policy, len(invariants), verbose=verbose, as_json=context.as_json)
    if proof.breaches:
        raise typer.Exit(FOUND_EXIT_CODE)


def _check(
    context: Context, given: Certificate, policy: CompiledPolicy, invariants: tuple[Invariant, ...]
) -> None:
    from authz.policy.certificate import check_certificate

    check_certificate(given, policy, invariants)
    if context.as_json:
        print_json({"holds": True, "invariants": len(invariants), "obligations": given.obligations})
    else:
        print(f"the certificate holds: {len(invariants)} invariants, {given.obligations} obligations")


def _load(
    context: Context, source: PolicyFiles, course: str | None
) -> tuple[CompiledPolicy, tuple[Invariant, ...]]:
    from authz.policy.versions import load_files

    if course:
        found = load_in_course(context, course, source)
        return found.policy, found.invariants
    policy, invariants, _ = load_files(source.files)
    return policy, invariants


def _print(proof: Proof, policy: CompiledPolicy, invariants: int, *, verbose: bool, as_json: bool) -> None:
    if as_json:
        breaches = [_breach_data(breach, policy) for breach in proof.breaches]
        print_json({"proved": not breaches, "breaches": breaches, "certificate": proof.certificate})
    elif proof.certificate is not None:
        courses = counted(len(policy.overrides), "course")
        print(
            f"proved: {invariants} invariants for every set of {len(policy.vocabulary.roles)} roles, "
            f"{proof.certificate.obligations} obligations, {courses} with overrides"
        )
    else:
        _print_breaches(proof.breaches, policy, invariants, verbose=verbose)


def _served_certificate(context: Context, number: int, course: str | None) -> Certificate:
    found = context.client.policies.certificate(number, course_id=course)
    return _read_certificate(found.json.encode(), "what the server sent")


def _read_certificate(content: bytes, source: str) -> Certificate:
    from authz.policy.certificate import Certificate

    try:
        return msgspec.json.decode(content, type=Certificate)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"{source} is not a certificate: {error}; write one with --certificate") from None


def _example(breach: Breach, policy: CompiledPolicy) -> Counterexample:
    from authz.policy.counterexample import counterexample

    return counterexample(breach, policy.vocabulary)


def _breach_data(breach: Breach, policy: CompiledPolicy) -> dict[str, Any]:
    from authz.domain.facts import fact_names
    from authz.policy.cases import case_file_of

    obligation = breach.obligation
    return {
        "invariant": obligation.invariant.name,
        "says": obligation.invariant.says,
        "rule": obligation.rule,
        "course_id": obligation.course_id,
        "roles": obligation.roles,
        "type": obligation.type_name,
        "action": obligation.action,
        "facts": fact_names(breach.facts),
        "counterexample": case_file_of(obligation.invariant.says, _example(breach, policy)),
    }


def _print_breaches(
    breaches: Sequence[Breach], policy: CompiledPolicy, invariants: int, *, verbose: bool
) -> None:
    """Print each broken invariant once, with the rows that break it and a test; of many, the first ones."""
    by_invariant: dict[str, list[Breach]] = {}
    for breach in breaches:
        by_invariant.setdefault(breach.obligation.invariant.name, []).append(breach)
    for place, found in enumerate(by_invariant.values()):
        invariant = found[0].obligation.invariant
        print(f"broken: {escaped(invariant.name)}: {escaped(invariant.says)}")
        for number, breach in enumerate(found if verbose else found[:_MAX_SHOWN]):
            _print_row(breach.obligation, breach.facts)
            if verbose or (number == 0 and place < _MAX_SHOWN):
                _print_test(breach, policy)
        if len(found) > _MAX_SHOWN and not verbose:
            rest = Counter(f"`{each.obligation.rule.role}`" for each in found[_MAX_SHOWN:])
            print(f"  and {counted(rest.total(), 'more row')} of {most_common(rest, 'roles')}")
    if len(breaches) > _MAX_SHOWN and not verbose:
        rows = counted(len({breach.obligation.rule for breach in breaches}), "row")
        many = f"{len(by_invariant)} of {invariants} invariants"
        print(f"{many} do not hold because of {rows}; --verbose prints all")


def _print_row(obligation: Obligation, facts: int) -> None:
    from authz.domain.facts import fact_names

    rule = obligation.rule
    when = " & ".join(fact_names(facts)) or "no fact holds"
    print(f"  {rule.source}: {', '.join(rule.fields)}")
    print(f"    {' and '.join(obligation.roles)}: {obligation.action} on {obligation.type_name} when {when}")


def _print_test(breach: Breach, policy: CompiledPolicy) -> None:
    from authz.policy.cases import case_file_of, render

    print("    a test that fails until it is mended:")
    for line in render(case_file_of(breach.obligation.invariant.says, _example(breach, policy))).splitlines():
        print(f"      {line}".rstrip())
