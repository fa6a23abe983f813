"""The version that a folder or the file of a course was exported from, so that applying it undoes no version
made since."""

from __future__ import annotations

from pathlib import Path

from authz.cli.policy_source import PolicyFiles

_SUFFIX = ".exported-from"


def base_file(exported: Path) -> Path:
    """Where the number and the digest of the version are: in the folder, or next to the file.

    The name begins with a dot, so it is in no version.
    """
    if exported.is_dir():
        return exported / _SUFFIX
    return exported.with_name(f".{exported.name}{_SUFFIX}")


def write_base(exported: Path, source: PolicyFiles) -> None:
    """Say which version a folder or a file has."""
    base_file(exported).write_text(f"{source.number} {source.digest}\n")


def has_base(exported: Path) -> bool:
    """Whether it is known which version a folder or a file was exported from."""
    return base_file(exported).is_file()


def require_base(exported: Path, active: PolicyFiles | None) -> None:
    """Raise `ValueError` if another version is active, or none, than the one that was exported.

    Digests are compared, not numbers, which differ between databases, and which a rollback changes.
    """
    base = base_file(exported)
    number, _, digest = base.read_text().strip().partition(" ")
    if active is not None and digest == active.digest:
        return
    now, expected = ("no version", 0) if active is None else (f"version {active.number}", active.number)
    what = "folder" if exported.is_dir() else "file"
    raise ValueError(
        f"`{exported}` was exported from version {number}, and {now} is active, so"
        f" applying the {what} would undo what changed since; export the active version to a new {what}"
        f" and make your change there, or replace {now} with `--expected-active"
        f" {expected}`; a {what} that a repository has needs no file `{base.name}`: delete it"
    )
