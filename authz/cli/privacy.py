"""`authz privacy export`, `schema`: what is held about a subject."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
import typer

from authz.cli.connection import DEFAULT_ADDRESS, Address, Database, connect
from authz.cli.options import Who
from authz.domain.exports import SubjectExport

app = typer.Typer(help="Export what is held about a subject.", no_args_is_help=True)


class Format(StrEnum):
    """How an export is printed."""

    JSON = "json"
    HTML = "html"


@app.command("export")
def export(
    who: Who,
    form: Annotated[Format, typer.Option("--format", help="JSON to process, HTML to read.")] = Format.JSON,
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
) -> None:
    """Print everything that the service holds about a subject."""
    from authz.cli.export_json import json_lines
    from authz.cli.export_page import page_lines

    render = json_lines if form is Format.JSON else page_lines
    with connect(address, database) as client:
        for line in render(client.privacy.export(who)):
            print(line)


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of `authz privacy export`."""
    print(msgspec.json.format(msgspec.json.encode(msgspec.json.schema(SubjectExport))).decode())
