"""`authz audit keygen`, `checkpoint` and `verify`: tamper evidence for the change log and the decisions."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from authz.cli.connection import sqlite_file_of
from authz.cli.server_settings import database_options
from authz.domain.errors import malformed, precondition_failed
from authz.domain.instants import format_instant

if TYPE_CHECKING:
    from authz.audit.notes import Checkpoint
    from authz.store.log.verification import DecisionTree, LogTree

FAULT_EXIT_CODE = 1
_MODE = 0o600
PublicKey = Annotated[str, typer.Option(help="Public key that `authz audit keygen` printed.")]


def keygen(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the log, such as example.org/authz.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="New file for the secret key, with mode 0600.")
    ],
) -> None:
    """Create a key that signs checkpoints, and print the public key that verifies them."""
    from authz.audit.notes import NoteSigner

    signer = NoteSigner.generate(name)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
    except FileExistsError:
        raise malformed("FILE", f"`{file}` is there; name another, or move it away") from None
    with os.fdopen(descriptor, "w") as written:
        written.write(f"{signer.secret_key()}\n")
    print(signer.public_key())


@database_options
def checkpoint(
    key: Annotated[Path, typer.Option(help="File with the secret key.", exists=True, dir_okay=False)],
    **given: str | bool | None,
) -> None:
    """Verify every revision, record and logged decision, sign the Merkle roots, and print the checkpoint.

    Store checkpoints where nobody with write access to the database can change them. Exit code: 0 signed,
    1 tampering detected, and nothing is signed.
    """
    from authz.audit.notes import Checkpoint, NoteSigner

    signer = NoteSigner.parse(key.read_text("utf-8", "replace"), field=str(key))
    tree, decisions = _trees(given, [])
    faults = (*tree.faults, *decisions.faults)
    if faults:
        _print_faults(faults)
        raise typer.Exit(FAULT_EXIT_CODE)
    roots = (tree.roots[tree.size], decisions.roots[decisions.size])
    print(signer.sign(Checkpoint(signer.name, tree.size, roots[0], decisions.size, roots[1])), end="")


@database_options
def verify(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(metavar="CHECKPOINT", help="Files of checkpoints.", exists=True),
    ],
    public_key: PublicKey,
    **given: str | bool | None,
) -> None:
    """Compare a database with signed checkpoints, without a server.

    The change log and the logged decisions are compared with the checkpoints, the records with the change
    log.

    Exit code: 0 unchanged, 1 tampering detected, 2 records not compared, because an erasure is under way.
    """
    from authz.audit.notes import NoteVerifier

    verifier = NoteVerifier(public_key)
    texts = {str(each): each.read_text("utf-8", "replace") for each in checkpoints}
    signed = [each for name, text in texts.items() for each in verifier.open_all(text, field=name)]
    tree, decisions = _trees(given, signed)
    sizes = [(each.size, each.root) for each in signed]
    decision_sizes = [(each.decisions_size, each.decisions_root) for each in signed]
    different = [
        *_differences("revisions", sizes, tree),
        *_differences("batches of decisions", decision_sizes, decisions),
    ]
    for text in different:
        print(text)
    faults = (*tree.faults, *decisions.faults)
    _print_faults(faults)
    if different or faults:
        raise typer.Exit(FAULT_EXIT_CODE)
    _print_kept(max(each.size for each in signed), tree)
    _print_kept_decisions(max(each.decisions_size for each in signed), decisions)
    if tree.records is None:
        raise precondition_failed(
            "an erasure rewrites the change log, so the records are not compared with it; verify again later"
        )


def _trees(
    given: Mapping[str, str | bool | None], signed: Sequence[Checkpoint]
) -> tuple[LogTree, DecisionTree]:
    from authz.runtime.settings import load_settings
    from authz.store.log.verification import UNREADABLE, read_trees

    settings = load_settings(given)
    sqlite_file_of(settings.database_url)
    try:
        return read_trees(
            settings.database_url,
            [each.size for each in signed],
            [each.decisions_size for each in signed],
            password_file=settings.database_password_file,
        )
    except UNREADABLE as error:
        _print_faults([f"a row is not as the service wrote it, and cannot be read: {error!r}"])
        raise typer.Exit(FAULT_EXIT_CODE) from None


def _differences(what: str, signed: Iterable[tuple[int, bytes]], tree: LogTree | DecisionTree) -> list[str]:
    """How a log differs from checkpoints, each a size and a root; and how far it does not, if it differs."""
    same, different = 0, []
    for size, root in signed:
        if size > tree.size:
            different.append(f"the end is cut off: {size} {what} were signed, and the tree has {tree.size}")
        elif root != tree.roots[size]:
            different.append(f"the first {size} {what} are not those that were signed")
        else:
            same = max(same, size)
    if different and same:
        different.append(f"the first {same} {what} are those that were signed")
    return different


def _print_faults(faults: Iterable[str]) -> None:
    for fault in faults:
        print(fault, file=sys.stderr)


def _print_kept(anchored: int, tree: LogTree) -> None:
    print(f"revisions 1 to {anchored} are as they were signed")
    if tree.size > anchored:
        rest = f"revisions {anchored + 1} to {tree.size}"
        print(f"{rest} are as they were committed, as far as the database says: no checkpoint has them")
    if tree.records is not None:
        print(f"{tree.records} records are as the change log made them")
    if tree.through:
        print(
            f"retention has purged {tree.purged} changes of revisions 1 to {tree.through}: their hashes are"
            " kept, and the last change of each record is there"
        )
    if tree.erased:
        print(f"{tree.erased} texts are no longer complete, as after an erasure")


def _print_kept_decisions(anchored: int, tree: DecisionTree) -> None:
    if tree.size:
        print(f"batches 1 to {anchored} of the logged decisions are as they were signed")
    if tree.size > anchored:
        rest = f"batches {anchored + 1} to {tree.size}"
        print(f"{rest} are as they were logged, as far as the database says: no checkpoint has them")
    if tree.purged:
        until = format_instant(tree.purged_until)
        print(f"retention has purged {tree.purged} batches, up to {until}: their hashes are kept")
