"""`authz account suspend`, `restore`: take every role of a subject away, and give them back."""

from __future__ import annotations

import typer

from authz.cli.command import Context, on_server
from authz.cli.known_subjects import note_if_unknown
from authz.cli.options import Until, Who, suspension_end
from authz.client import Client
from authz.domain.entities import Account, AccountFilter, AccountKey, AccountStatus
from authz.domain.errors import precondition_failed
from authz.domain.ids import Subject
from authz.domain.mutations import Mutation, Operation, update

app = typer.Typer(help="Suspend or restore an account.", no_args_is_help=True)


@on_server(app, writes=True)
def suspend(context: Context, who: Who, until: Until = "") -> None:
    """Take every role away, in every course and on the platform, until a time or without end."""
    end = suspension_end(context.client, until)
    note_if_unknown(context.client, who)
    held = _account_of(context.client, who)
    if end is not None and held == Account(who, AccountStatus.SUSPENDED):
        raise precondition_failed(
            f"the account of {who} is suspended without an end, which `--until` would shorten; leave it so,"
            f" or end that first with `authz account restore {who}`"
        )
    account = Account(subject=who, status=AccountStatus.SUSPENDED, suspended_until=end)
    suspended = [Mutation(Operation.TOUCH, account)]
    context.write(suspended, AccountFilter(subject=who))


@on_server(app, writes=True)
def restore(context: Context, who: Who) -> None:
    """End the suspension of an account. Memberships that are suspended stay so."""
    if _account_of(context.client, who) is None:
        raise precondition_failed(
            f"the account of {who} was never suspended;"
            f" end a suspension in a course with `authz member restore {who} course:<id>`"
        )
    restored = update(AccountKey(who), status=AccountStatus.ACTIVE, suspended_until=None)
    context.write([restored], AccountFilter(subject=who))


def _account_of(client: Client, who: Subject) -> Account | None:
    found = next(client.read(AccountFilter(subject=who)), None)
    return None if found is None else found.entity
