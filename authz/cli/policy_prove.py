"""`authz policy prove`: prove the invariants of a policy, or show who breaks one and how."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from authz.cli.connection import DEFAULT_ADDRESS, Address, Database, connect
from authz.cli.output import print_json
from authz.cli.policy import FOUND_EXIT_CODE, Folder, Json, Version, policy_folder
from authz.cli.policy_course import Course, load_in_course
from authz.cli.policy_versions import version_number

if TYPE_CHECKING:
    from authz.policy.certificate import Certificate
    from authz.policy.compile import CompiledPolicy
    from authz.policy.counterexample import Counterexample
    from authz.policy.invariants import Invariant
    from authz.policy.prove import Breach, Proof


def prove(
    folder: Folder = None,
    course: Course = "",
    certificate: Annotated[Path | None, typer.Option(help="Write the certificate to this file.")] = None,
    check: Annotated[Path | None, typer.Option(help="Check this certificate instead of proving.")] = None,
    served: Annotated[
        bool, typer.Option("--served", help="Check the certificate that the server has of --version.")
    ] = False,
    version: Version = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    as_json: Json = False,
) -> None:
    """Prove the invariants for all roles, types, actions and facts. Exit code: 0 proved, 1 broken.

    With --course, of the active policy of the platform together with that of the course.
    """
    from authz.policy.certificate import check_certificate
    from authz.policy.prove import prove as prove_invariants

    if served and not version:
        raise ValueError(
            "--served is for a version on a server; name it with `--version active`, or a number"
        )
    policy, invariants = _load(folder, course, version, address, database)
    if check is not None or served:
        if check is None:
            given = _served_certificate(version, course, address, database)
        else:
            given = _read_certificate(check.read_bytes(), f"`{check}`")
        check_certificate(given, policy, invariants)
        print(f"the certificate holds: {len(invariants)} invariants, {given.obligations} obligations")
        return
    proof = prove_invariants(policy, invariants)
    if proof.certificate is not None and certificate is not None:
        certificate.write_bytes(msgspec.json.encode(proof.certificate))
    _print(proof, policy, len(invariants), as_json)
    if proof.breaches:
        raise typer.Exit(FOUND_EXIT_CODE)


def _load(
    folder: Path | None, course: str, version: str, address: str, database: str
) -> tuple[CompiledPolicy, tuple[Invariant, ...]]:
    from authz.policy.invariants import load_invariants
    from authz.policy.load import load_policy

    if course:
        found = load_in_course(course, folder, version, address, database)
        return found.policy, found.invariants
    with policy_folder(folder, version, address, database) as directory:
        policy = load_policy(directory)
        return policy, load_invariants(directory, policy.vocabulary)


def _print(proof: Proof, policy: CompiledPolicy, invariants: int, as_json: bool) -> None:
    if as_json:
        breaches = [_breach_data(breach, policy) for breach in proof.breaches]
        print_json({"proved": not breaches, "breaches": breaches, "certificate": proof.certificate})
    elif proof.certificate is not None:
        print(
            f"proved: {invariants} invariants for every set of {len(policy.vocabulary.roles)} roles, "
            f"{proof.certificate.obligations} obligations, {len(policy.overrides)} courses with overrides"
        )
    else:
        for breach in proof.breaches:
            _print_breach(breach, policy)


def _served_certificate(version: str, course: str, address: str, database: str) -> Certificate:
    with connect(address, database) as client:
        found = client.policies.certificate(version_number(version), course_id=course)
    return _read_certificate(found.json.encode(), "what the server sent")


def _read_certificate(content: bytes, source: str) -> Certificate:
    from authz.policy.certificate import Certificate

    try:
        return msgspec.json.decode(content, type=Certificate)
    except msgspec.DecodeError as error:
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


def _print_breach(breach: Breach, policy: CompiledPolicy) -> None:
    from authz.domain.facts import fact_names
    from authz.policy.cases import case_file_of, render

    obligation = breach.obligation
    rule = obligation.rule
    facts = " & ".join(fact_names(breach.facts)) or "no fact holds"
    print(f"broken: {obligation.invariant.name}: {obligation.invariant.says}")
    row = ", ".join((rule.role, rule.scope, rule.type, rule.action, rule.condition, rule.effect))
    print(f"  {rule.source}: {row}")
    print(f"  {' and '.join(obligation.roles)}: {obligation.action} on {obligation.type_name} when {facts}")
    print("  a test that fails until it is mended:")
    for line in render(case_file_of(obligation.invariant.says, _example(breach, policy))).splitlines():
        print(f"    {line}".rstrip())
