"""`authz import`: import a roster, a list of resources, or what was exported of a subject."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authz.cli.command import Context, on_server
from authz.cli.import_oneroster import oneroster
from authz.cli.import_report import finish_import, import_reason, print_capped
from authz.cli.interrupted_import import import_mutations
from authz.importers.report import ParsedSource

app = typer.Typer(
    help="Import a roster, a list of resources, or an export of a subject.", no_args_is_help=True
)
on_server(app, creates=True, prints_json=False)(oneroster)


@on_server(app, creates=True, prints_json=False)
def resources(
    context: Context,
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="A CSV file, or JSON lines if it ends in .jsonl; - for stdin."),
    ],
    type_name: Annotated[str, typer.Option("--type", help="The type of rows without one.")] = "",
    owner: Annotated[str, typer.Option("--owner", help="The owner, as user:<id>, of rows without one.")] = "",
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", metavar="COLUMN", help="A column to ignore. May be repeated."),
    ] = None,
) -> None:
    """Import resources. A repeated import changes nothing.

    Columns: id; course_id or session_id; optional are type, owner, visibility (private, session, course),
    published, available_from, available_until, created_at, locked, ai_allowed. What has no column goes back
    to its default, also in a resource that exists.
    """
    from authz.importers.resources import read_resources

    parsed = read_resources(path, type_name=type_name, owner=owner, ignored=ignore or ())
    _import(context, parsed, path)


@on_server(app, creates=True, prints_json=False)
def subject(
    context: Context,
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="The JSON of `authz privacy export`; - for stdin.")
    ],
) -> None:
    """Import the records of an export: the subject then has the same access.

    A record that is there already stays as it is.
    """
    from authz.importers.subject_export import read_subject_export, records_of, records_there, restriction_in

    export = read_subject_export(path)
    client = context.client
    why, privacy = restriction_in(export), client.privacy
    if why is not None and export.subject not in {
        each.restriction.entity.subject for each in privacy.restrictions()
    }:
        # Before the records, which would give access until then.
        privacy.restrict(export.subject, reason=why or "as in the export")
        print(f"{export.subject} is restricted, as in the export: {why}")
    _import(context, records_of(export, path, records_there(export, client)), path)


def _import(context: Context, parsed: ParsedSource, path: Path) -> None:
    reason = import_reason(path)
    client = context.client  # before the progress bar: that of an unreachable server says nothing
    mutations = (each.mutation for each in parsed.mutations)
    outcome = import_mutations(client, mutations, total=len(parsed.mutations), reason=reason)
    print_capped("note", map(str, parsed.notes))
    finish_import(outcome, parsed.mutations, parsed.faults)
