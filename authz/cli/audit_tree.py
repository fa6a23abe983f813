"""`authz audit keygen`, `checkpoint` and `verify`: tamper evidence for the change log."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from authz.domain.errors import malformed

if TYPE_CHECKING:
    from authz.audit.notes import Checkpoint
    from authz.store.log_tree import LogTree

FAULT_EXIT_CODE = 1
_MODE = 0o600
PublicKey = Annotated[str, typer.Option(help="Public key that `authz audit keygen` printed.")]
Database = Annotated[str | None, typer.Option(help="sqlite:///file or postgresql://….")]


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


def checkpoint(
    key: Annotated[Path, typer.Option(help="File with the secret key.", exists=True, dir_okay=False)],
    database: Database = None,
) -> None:
    """Verify every revision of the change log, sign its Merkle root, and print the signed checkpoint.

    Store checkpoints where nobody with write access to the database can change them. Exit code: 0 signed,
    1 tampering detected, and nothing is signed.
    """
    from authz.audit.notes import Checkpoint, NoteSigner

    signer = NoteSigner.parse(key.read_text(), field=str(key))
    tree = _tree(database, (), completes=True)
    if tree.faults:
        _print_faults(tree)
        raise typer.Exit(FAULT_EXIT_CODE)
    print(signer.sign(Checkpoint(signer.name, tree.size, tree.roots[tree.size])), end="")


def verify(
    checkpoints: Annotated[
        list[Path], typer.Argument(metavar="CHECKPOINT", help="Checkpoint files.", exists=True)
    ],
    public_key: PublicKey,
    database: Database = None,
) -> None:
    """Compare the change log of a database with signed checkpoints, without a server.

    Exit code: 0 unchanged, 1 tampering detected.
    """
    from authz.audit.notes import NoteVerifier

    verifier = NoteVerifier(public_key)
    signed = [verifier.open(each.read_text(), field=str(each)) for each in checkpoints]
    tree = _tree(database, [each.size for each in signed], completes=False)
    different = [text for each in signed if (text := _difference(each, tree))]
    for text in different:
        print(text)
    _print_faults(tree)
    if different or tree.faults:
        raise typer.Exit(FAULT_EXIT_CODE)
    _print_kept(max(each.size for each in signed), tree)


def _tree(database: str | None, sizes: list[int] | tuple[int, ...], *, completes: bool) -> LogTree:
    from authz.runtime.settings import load_settings
    from authz.store.log_tree import read_tree

    settings = load_settings({"database_url": database})
    password_file = settings.database_password_file
    return read_tree(settings.database_url, sizes, password_file=password_file, completes=completes)


def _difference(signed: Checkpoint, tree: LogTree) -> str:
    """How the log differs from a checkpoint; empty if it does not."""
    if signed.size > tree.size:
        return f"the end is cut off: {signed.size} revisions were signed, and the tree has {tree.size}"
    if signed.root != tree.roots[signed.size]:
        return f"the first {signed.size} revisions are not those that were signed"
    return ""


def _print_faults(tree: LogTree) -> None:
    for fault in tree.faults:
        print(fault, file=sys.stderr)


def _print_kept(anchored: int, tree: LogTree) -> None:
    print(f"revisions 1 to {anchored} are as they were signed")
    if tree.size > anchored:
        rest = f"revisions {anchored + 1} to {tree.size}"
        print(f"{rest} are as they were committed, as far as the database says: no checkpoint has them")
    if tree.cut:
        print(f"of the first {tree.cut} the hashes alone are kept")
    if tree.erased:
        print(f"of {tree.erased} texts something is gone, as after an erasure")
