"""`authz audit newest-checkpoint` and `prove-…`: what a server signed and proves, verified here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import typer

from authz.cli.audit_tree import FAULT_EXIT_CODE, PublicKey
from authz.cli.command import Context, on_server
from authz.cli.output import print_json
from authz.domain.proofs import AuditLog, ConsistencyProof, InclusionProof

_LOGS = {
    False: (AuditLog.CHANGES, "revision", "revisions"),
    True: (AuditLog.DECISIONS, "batch", "batches of decisions"),
}
"""By whether it is about decisions: the log, and what its leaves are called."""

CheckpointFile = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint file.", exists=True, dir_okay=False)
]

OfDecisions = Annotated[
    bool, typer.Option("--decisions", help="About the logged decisions, in place of the change log.")
]


@on_server(prints_json=False)
def newest_checkpoint(context: Context) -> None:
    """Print the newest checkpoint that a server has signed, for `authz audit verify`."""
    print(context.client.audit.checkpoint(), end="")


@on_server()
def prove_inclusion(
    context: Context,
    number: Annotated[
        int,
        typer.Argument(
            metavar="NUMBER", min=1, help="Revision of the change log, or `leaf` of a logged decision."
        ),
    ],
    checkpoint: CheckpointFile,
    public_key: PublicKey,
    of_decisions: OfDecisions = False,
) -> None:
    """Prove that a revision is in the history that a checkpoint signed, without the database.

    Prints the revision, with keyed hashes in place of subjects and texts. Exit code: 0 proved, 1 tampering
    detected.
    """
    log, leaf, leaves = _LOGS[of_decisions]
    head = _head(checkpoint, public_key, log)
    proof = context.client.audit.inclusion_proof(number, head.size, log=log)
    holds = proof.holds_for(head.root)
    conclusion = f"{leaf} {number} is {'' if holds else 'not '}in the {head.size} {leaves} that were signed"
    _conclude(context, proof, holds, conclusion)
    if not context.as_json:
        print(proof.content.decode() or "the hash alone is kept")
        for change in proof.changes:
            print(change.decode())


@on_server()
def prove_consistency(
    context: Context,
    first: CheckpointFile,
    second: Annotated[
        Path, typer.Argument(metavar="LATER", help="Later checkpoint file.", exists=True, dir_okay=False)
    ],
    public_key: PublicKey,
    of_decisions: OfDecisions = False,
) -> None:
    """Prove that a later checkpoint signed a history that begins as an earlier one, without the database.

    Exit code: 0 proved, 1 tampering detected.
    """
    log, _, leaves = _LOGS[of_decisions]
    one, other = sorted(_head(each, public_key, log) for each in (first, second))
    proof = context.client.audit.consistency_proof(one.size, other.size, log=log)
    holds = proof.holds_for(one.root, other.root)
    begin = "begin" if holds else "do not begin"
    conclusion = f"the {one.size} {leaves} that were signed first {begin} the {other.size}"
    _conclude(context, proof, holds, conclusion)


class _Head(NamedTuple):
    """The size and the root of a tree that was signed."""

    size: int
    root: bytes


def _head(file: Path, public_key: str, log: AuditLog) -> _Head:
    from authz.audit.notes import NoteVerifier

    signed = NoteVerifier(public_key).open(file.read_text("utf-8", "replace"), field=str(file))
    if log is AuditLog.CHANGES:
        return _Head(signed.size, signed.root)
    return _Head(signed.decisions_size, signed.decisions_root)


def _conclude(context: Context, proof: InclusionProof | ConsistencyProof, holds: bool, text: str) -> None:
    if context.as_json:
        print_json(msgspec.structs.asdict(proof) | {"holds": holds})
    else:
        print(text)
    if not holds:
        raise typer.Exit(FAULT_EXIT_CODE)
