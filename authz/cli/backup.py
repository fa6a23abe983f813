"""`authz backup` and `authz restore`: a database as one file, and back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from authz.cli.connection import sqlite_file_of
from authz.cli.server_settings import database_options
from authz.domain.erasures import ERASURE_LIST_FORMAT, ErasureList
from authz.domain.errors import malformed


@database_options
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file for the backup.")],
    **given: str | bool | None,
) -> None:
    """Copy the database into a file, at one revision, while servers run."""
    from authz.runtime.settings import load_settings
    from authz.store.backup import back_up

    settings = load_settings(given)
    sqlite_file_of(settings.database_url)
    revision = back_up(settings.database_url, file, password_file=settings.database_password_file)
    print(f"{file} holds revision {revision}")


@database_options
def restore(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The file of the backup.", exists=True, dir_okay=False),
    ],
    erasures: Annotated[
        Path | None,
        typer.Option(help="Repeat the erasures in this file, from `authz privacy erasures --export`."),
    ] = None,
    **given: str | bool | None,
) -> None:
    """Copy a backup into an empty database, of either kind."""
    from authz.runtime.compose import system_clock
    from authz.runtime.settings import load_settings
    from authz.store.backup import restore as restore_into

    settings = load_settings(given)
    revision = restore_into(
        file,
        settings.database_url,
        password_file=settings.database_password_file,
        erasures=None if erasures is None else _read_erasures(erasures),
        clock=system_clock,
    )
    print(f"the database holds revision {revision}; start the servers")
    if erasures is None:
        print(
            "note: people who were erased after this backup are in the database again; to erase them again,"
            " restore with --erasures",
            file=sys.stderr,
        )


def _read_erasures(file: Path) -> ErasureList:
    remedy = "make one with `authz privacy erasures --export`"
    try:
        found = msgspec.json.decode(file.read_bytes(), type=ErasureList)
    except (ValueError, RecursionError) as error:
        raise malformed("--erasures", f"`{file}` is no list of erasures ({error}); {remedy}") from None
    if found.format != ERASURE_LIST_FORMAT:
        raise malformed("--erasures", f"`{file}` has the format `{found.format}`; {remedy} of this release")
    return found
