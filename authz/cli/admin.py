"""`authz admin grant`: give a caller or a person a role on the platform, on the machine with the database."""

from __future__ import annotations

from typing import Annotated

import typer

from authz.cli.connection import connect
from authz.cli.options import DATABASE_FLAGS, Reason, Who
from authz.domain.entities import Membership
from authz.domain.ids import PLATFORM
from authz.domain.mutations import Mutation, Operation

app = typer.Typer(help="Let in the first callers.", no_args_is_help=True)

Role = Annotated[str, typer.Option("--role", help="A role on the platform, such as operator.")]
Database = Annotated[
    str,
    typer.Option(*DATABASE_FLAGS, envvar="AUTHZ_DATABASE_URL", help="The database: sqlite:///authz.db."),
]


@app.callback()
def group() -> None:
    """Let in the first callers."""


@app.command("grant")
def grant(who: Who, role: Role, database: Database = "sqlite:///authz.db", reason: Reason = "") -> None:
    """Give a role on the platform. Needs the right to open the database, and no right of a caller."""
    membership = Membership(subject=who, scope=PLATFORM, role=role)
    with connect("", database, creates=True) as client:
        client.write([Mutation(Operation.CREATE, membership)], reason=reason)
    print(f"{who} has the role {role} on the platform")
