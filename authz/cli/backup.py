"""`authz backup` and `authz restore`: a database as one file, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[Path, typer.Argument(metavar="FILE", help="The file of the backup.")]
Database = Annotated[str | None, typer.Option(help="sqlite:///file or postgresql://….")]


def backup(file: File, database: Database = None) -> None:
    """Copy the database into a file, at one revision, while servers run."""
    from authz.runtime.settings import load_settings
    from authz.store.backup import back_up

    settings = load_settings({"database_url": database})
    revision = back_up(settings.database_url, file, password_file=settings.database_password_file)
    print(f"{file} holds revision {revision}")


def restore(file: File, database: Database = None) -> None:
    """Copy a backup into an empty database, of either kind."""
    from authz.runtime.settings import load_settings
    from authz.store.backup import restore as restore_into

    settings = load_settings({"database_url": database})
    revision = restore_into(file, settings.database_url, password_file=settings.database_password_file)
    print(f"the database holds revision {revision}; start the servers")
