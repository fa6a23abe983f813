"""The version that a folder was exported from, so that applying the folder undoes no version made since."""

from __future__ import annotations

from pathlib import Path

from authz.cli.policy_source import PolicySource

BASE_FILE = ".exported-from"
"""In an exported folder: the number and the digest of the version. It begins with a dot, so it is in no
version."""


def write_base(folder: Path, source: PolicySource) -> None:
    """Say in a folder which version it has."""
    (folder / BASE_FILE).write_text(f"{source.number} {source.digest}\n")


def has_base(folder: Path) -> bool:
    """Whether a folder says which version it was exported from."""
    return (folder / BASE_FILE).is_file()


def require_base(folder: Path, active: PolicySource) -> None:
    """Raise `ValueError` if another version is active than the one that a folder was exported from.

    Digests are compared, not numbers, which differ between databases, and which a rollback changes.
    """
    number, _, digest = (folder / BASE_FILE).read_text().strip().partition(" ")
    if digest != active.digest:
        raise ValueError(
            f"`{folder}` was exported from version {number}, and version {active.number} is active, so"
            " applying the folder would undo what changed since; export the active version to a new folder"
            f" and make your change there, or replace version {active.number} with `--expected-active"
            f" {active.number}`; a folder that a repository has needs no file `{BASE_FILE}`: delete it"
        )
