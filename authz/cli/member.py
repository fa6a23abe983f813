"""`authz member add`, `update`, `remove`: the memberships of one subject in one scope."""

from __future__ import annotations

from typing import Annotated

import typer

from authz.cli.command import Server, on_server
from authz.cli.member_suspension import (
    OnlyRole,
    membership_filter,
    memberships_of,
    restore,
    suspend,
)
from authz.cli.options import StartsAt, Until, Where, Who, given, given_times, updated
from authz.domain.entities import Membership, MembershipKey, MembershipStatus
from authz.domain.mutations import Mutation, Operation

app = typer.Typer(help="Add, update, suspend, restore or remove a member.", no_args_is_help=True)
app.command("suspend")(suspend)
app.command("restore")(restore)

Role = Annotated[str, typer.Argument(help="For example student.")]
Status = Annotated[MembershipStatus | None, typer.Option(case_sensitive=False, help="The status.")]


@app.command("add")
@on_server(writes=True)
def add(
    server: Server,
    who: Who,
    where: Where,
    role: Role,
    starts_at: StartsAt = "",
    ends_at: Until = "",
    status: Status = None,
) -> None:
    """Give a subject a role in a scope."""
    values = given(status=status) | given_times(starts_at=starts_at, ends_at=ends_at)
    new = Membership(subject=who, scope=where, role=role, **values)
    wanted = membership_filter(who, where)
    server.write([Mutation(Operation.CREATE, new)], wanted)


@app.command("update")
@on_server(writes=True)
def change(
    server: Server,
    who: Who,
    where: Where,
    role: Role,
    starts_at: StartsAt = "",
    ends_at: Until = "",
    status: Status = None,
) -> None:
    """Change the dates or the status of one membership; the rest stays as it is."""
    key = MembershipKey(who, where, role)
    values = given(status=status) | given_times(starts_at=starts_at, ends_at=ends_at)
    mutation = updated(key, values)
    wanted = membership_filter(who, where)
    server.write([mutation], wanted)


@app.command("remove")
@on_server(writes=True)
def remove(server: Server, who: Who, where: Where, role: OnlyRole = "") -> None:
    """Remove the memberships of a subject in a scope. Those in the sessions of a course stay."""
    held = memberships_of(server.client, membership_filter(who, where, role))
    server.client.write([Mutation(Operation.DELETE, each.key) for each in held], reason=server.reason)
    for each in held:
        print(f"deleted {each.key}")
