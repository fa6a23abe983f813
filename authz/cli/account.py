"""`authz account suspend`, `restore`: take every role of a subject away, and give them back."""

from __future__ import annotations

import typer

from authz.cli.command import Context, on_server
from authz.cli.known_subjects import note_if_unknown
from authz.cli.options import Until, Who, suspension_end
from authz.domain.entities import Account, AccountFilter, AccountKey, AccountStatus
from authz.domain.errors import precondition_failed
from authz.domain.mutations import Mutation, Operation, update

app = typer.Typer(help="Suspend or restore an account.", no_args_is_help=True)


@on_server(app, writes=True)
def suspend(context: Context, who: Who, until: Until = "") -> None:
    """Take every role away, in every course and on the platform, until a time or without end."""
    end = suspension_end(until)
    note_if_unknown(context.client, who)
    account = Account(subject=who, status=AccountStatus.SUSPENDED, suspended_until=end)
    suspended = [Mutation(Operation.TOUCH, account)]
    context.write(suspended, AccountFilter(subject=who))


@on_server(app, writes=True)
def restore(context: Context, who: Who) -> None:
    """End the suspension of an account. Memberships that are suspended stay so."""
    if next(iter(context.client.read(AccountFilter(subject=who))), None) is None:
        raise precondition_failed(
            f"the account of {who} was never suspended;"
            f" end a suspension in a course with `authz member restore {who} course:<id>`"
        )
    restored = update(AccountKey(who), status=AccountStatus.ACTIVE, suspended_until=None)
    context.write([restored], AccountFilter(subject=who))
