"""`authz doctor`: say what is wrong or unsafe about a server on this machine."""

from __future__ import annotations

import typer

from authz.cli.output import FOUND_EXIT_CODE
from authz.cli.server_settings import setting_options


@setting_options()
def doctor(**given: str | bool | None) -> None:
    """Report what is wrong or unsafe about the settings, files, database, replica and running server.

    Takes the flags and AUTHZ_ variables of `authz serve`. Changes nothing. Exit code 0 when nothing is wrong
    or unsafe, 1 when something is, 2 when the settings cannot be read.
    """
    from authz.runtime.doctor import findings
    from authz.runtime.findings import Level
    from authz.runtime.settings import load_settings

    found = [*findings(load_settings(given))]
    for each in found:
        print(f"{each.level}: {each.text}")
    if any(each.level is not Level.NOTE for each in found):
        raise typer.Exit(FOUND_EXIT_CODE)
    print("nothing is wrong or unsafe")
