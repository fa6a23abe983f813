"""`authz import`: import a roster, a list of resources, or what was exported of a subject."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authz.cli.connection import DEFAULT_ADDRESS, Address, Database, connect
from authz.cli.import_oneroster import oneroster
from authz.cli.import_report import finish_import, import_reason, print_capped
from authz.cli.output import progress_bar
from authz.importers.report import ParsedSource

app = typer.Typer(
    help="Import a roster, a list of resources, or an export of a subject.", no_args_is_help=True
)
app.command("oneroster")(oneroster)


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
    _import(parsed, path, address, database)


@app.command("subject")
def subject(
    path: Annotated[Path, typer.Argument(help="The JSON of `authz privacy export`.")],
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
) -> None:
    """Import the records of an export: the subject then has the same access."""
    from authz.importers.subject_export import read_subject_export

    _import(read_subject_export(path), path, address, database)


def _import(parsed: ParsedSource, path: Path, address: str, database: str) -> None:
    reason = import_reason(path)
    with (
        connect(address, database, creates=True) as client,
        progress_bar(reason, len(parsed.mutations)) as advance,
    ):
        outcome = client.import_mutations(
            (each.mutation for each in parsed.mutations), reason=reason, progress=advance
        )
    print_capped("note", map(str, parsed.notes))
    finish_import(outcome, parsed.mutations, parsed.faults)
