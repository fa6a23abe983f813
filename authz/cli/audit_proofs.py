"""`authz audit newest-checkpoint` and `prove-…`: what a server signed and proves, verified here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from authz.cli.audit_tree import FAULT_EXIT_CODE, PublicKey
from authz.cli.command import Server, on_server
from authz.cli.output import print_json

if TYPE_CHECKING:
    from authz.audit.notes import Checkpoint
    from authz.domain.proofs import ConsistencyProof, InclusionProof

CheckpointFile = Annotated[
    Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint file.", exists=True, dir_okay=False)
]


@on_server()
def newest_checkpoint(server: Server) -> None:
    """Print the newest checkpoint that a server has signed, for `authz audit verify`."""
    print(server.client.audit.checkpoint(), end="")


@on_server()
def prove_inclusion(
    server: Server,
    revision: Annotated[int, typer.Argument(min=1, help="Revision of the change log.")],
    checkpoint: CheckpointFile,
    public_key: PublicKey,
) -> None:
    """Prove to you that the history that a checkpoint signed has a revision, without the database.

    Prints the revision, with keyed hashes in place of subjects and texts. Exit code: 0 proved, 1 tampering
    detected.
    """
    signed = _open(checkpoint, public_key)
    proof = server.client.audit.inclusion_proof(revision, signed.size)
    proved = f"revision {revision} is in the {signed.size} revisions that were signed"
    refuted = f"revision {revision} is not in the {signed.size} revisions that were signed"
    _conclude(server, proof, proof.holds_for(signed.root), proved, refuted)
    if not server.as_json:
        print(proof.content.decode() or "of the revision the hash alone is kept")


@on_server()
def prove_consistency(
    server: Server,
    first: CheckpointFile,
    second: Annotated[
        Path, typer.Argument(metavar="LATER", help="Later checkpoint file.", exists=True, dir_okay=False)
    ],
    public_key: PublicKey,
) -> None:
    """Prove to you that a checkpoint signed the beginning of what a later one signed, without the database.

    Exit code: 0 proved, 1 tampering detected.
    """
    one, other = sorted((_open(each, public_key) for each in (first, second)), key=lambda each: each.size)
    proof = server.client.audit.consistency_proof(one.size, other.size)
    proved = f"the {one.size} revisions that were signed first begin the {other.size}"
    refuted = f"the {one.size} revisions that were signed first do not begin the {other.size}"
    _conclude(server, proof, proof.holds_for(one.root, other.root), proved, refuted)


def _open(file: Path, public_key: str) -> Checkpoint:
    from authz.audit.notes import NoteVerifier

    return NoteVerifier(public_key).open(file.read_text(), field=str(file))


def _conclude(
    server: Server, proof: InclusionProof | ConsistencyProof, holds: bool, proved: str, refuted: str
) -> None:
    if server.as_json:
        print_json(msgspec.structs.asdict(proof) | {"holds": holds})
    else:
        print(proved if holds else refuted)
    if not holds:
        raise typer.Exit(FAULT_EXIT_CODE)
