"""`authz admin grant`: give a caller or a person a role on the platform, on the machine with the database."""

from __future__ import annotations

from typing import Annotated

import typer

from authz.cli.connection import connect
from authz.cli.options import Reason, Who
from authz.cli.server_settings import setting_options
from authz.domain.entities import Membership, MembershipFilter
from authz.domain.ids import PLATFORM
from authz.domain.mutations import Mutation, Operation

app = typer.Typer(
    help="Give roles on the platform, without a server, on the machine with the database.",
    no_args_is_help=True,
)


PlatformRole = Annotated[str, typer.Argument(metavar="ROLE", help="Such as operator.")]


@app.callback()
def group() -> None:
    """Give roles on the platform, without a server, on the machine with the database."""


@app.command("grant")
@setting_options("database_url")
def grant(who: Who, role: PlatformRole, reason: Reason = "", **given: str | bool | None) -> None:
    """Give a role on the platform. Needs the right to open the database, and no right of a caller.

    Does nothing if the subject has the role without an end.
    """
    from authz.runtime.settings import load_settings

    membership = Membership(subject=who, scope=PLATFORM, role=role)
    with connect(database=load_settings(given).database_url) as client:
        held = client.read(MembershipFilter(subject=who, scope=PLATFORM, role=role))
        if [each.entity for each in held] != [membership]:
            client.write([Mutation(Operation.CREATE, membership)], reason=reason)
    print(f"{who} has the role {role} on the platform")
