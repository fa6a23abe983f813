"""`authz import`: import a roster or a list of resources."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authz.cli.connection import DEFAULT_ADDRESS, Address, Database, connect
from authz.cli.output import err, progress_bar
from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.importers.files import ParsedSource
from authz.importers.reconcile import reconciled

app = typer.Typer(help="Import a roster or a list of resources.", no_args_is_help=True)

FAULTS_EXIT_CODE = 1
_MAX_LISTED = 50


@app.command("oneroster")
def oneroster(
    path: Annotated[Path, typer.Argument(help="A OneRoster 1.1 bulk export: a folder or a zip.")],
    role: Annotated[
        list[str] | None, typer.Option("--role-map", "--role", help="For example proctor=auditor.")
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
) -> None:
    """Import classes as courses and enrollments as memberships. A repeated import changes nothing.

    An import keeps what a roster does not contain: the state and settings of courses, and whether a
    membership is suspended or completed. When an enrollment has a new role, class or user, its previous
    membership is deleted.
    """
    from authz.importers.oneroster import DEFAULT_ROLES, read_oneroster

    parsed = read_oneroster(path, DEFAULT_ROLES | dict(_pair(text) for text in role or ()))
    _send(parsed, path, address, database, keep=True)


@app.command("resources")
def resources(
    path: Annotated[Path, typer.Argument(help="A CSV file, or JSON lines if it ends in .jsonl.")],
    type_name: Annotated[str, typer.Option("--type", help="The type of rows without one.")] = "",
    owner: Annotated[str, typer.Option(help="The owner, as user:<id>, of rows without one.")] = "",
    ignore: Annotated[list[str] | None, typer.Option("--ignore", help="A column to ignore.")] = None,
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
) -> None:
    """Import resources. A repeated import changes nothing."""
    from authz.importers.resources import read_resources

    parsed = read_resources(path, type_name=type_name, owner=owner, ignored=ignore or ())
    _send(parsed, path, address, database)


def _pair(text: str) -> tuple[str, str]:
    external, equals, internal = text.partition("=")
    if not (external and equals and internal):
        raise InvalidArgumentError(
            ErrorReason.MALFORMED_FIELD,
            f"--role-map `{text}` is not like `proctor=auditor`",
            field="--role-map",
        )
    return external, internal


def _send(parsed: ParsedSource, path: Path, address: str, database: str, *, keep: bool = False) -> None:
    """Import what was read; print failed rows and notes, with file and line."""
    sourced = parsed.mutations
    with (
        connect(address, database, creates=True) as client,
        progress_bar(f"importing {path.name}", len(sourced)) as advance,
    ):
        if keep:
            sourced = reconciled(parsed, client)
        outcome = client.import_mutations(
            (each.mutation for each in sourced), reason=f"import of {path.name}"[:200], progress=advance
        )
    faults = [str(fault) for fault in parsed.faults]
    for fault in outcome.faults:
        source = sourced[fault.position]
        faults.append(f"{source.file}:{source.line}: {fault.message}")
    _list("failed", faults)
    _list("note", [str(note) for note in parsed.notes])
    failed = outcome.failed + len(parsed.faults)
    print(f"written {outcome.written}, unchanged {outcome.unchanged}, failed {failed}")
    if failed:
        raise typer.Exit(FAULTS_EXIT_CODE)


def _list(label: str, lines: list[str]) -> None:
    for line in lines[:_MAX_LISTED]:
        err.print(f"{label}: {line}", markup=False, soft_wrap=True)
    if len(lines) > _MAX_LISTED:
        err.print(f"{label}: and {len(lines) - _MAX_LISTED} more", markup=False)
