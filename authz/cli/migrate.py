"""`authz migrate`: migrate a database to the schema of this version."""

from __future__ import annotations

from authz.cli.server_settings import database_options


@database_options
def migrate(**given: str | bool | None) -> None:
    """Migrate the database to the schema of this version. Does nothing if it is current.

    A database without a policy gets the shipped one as version 1.
    """
    from authz.runtime.compose import first_write, system_clock
    from authz.runtime.settings import load_settings
    from authz.store import prepare_store

    settings = load_settings(given)
    first = first_write(system_clock)
    prepare_store(settings.database_url, password_file=settings.database_password_file, first=first)
    print("the database has the schema of this version")
