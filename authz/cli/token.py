"""`authz token create`, `list`, `revoke`: tokens with which callers prove who they are."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from authz.cli.command import Context, on_server
from authz.cli.fault import require_written
from authz.cli.options import TIME, OnlySubject, future_time, now_of
from authz.cli.output import print_json
from authz.domain.entities import AccessTokenFilter, AccessTokenKey
from authz.domain.errors import precondition_failed
from authz.domain.ids import Subject, parse_subject
from authz.domain.instants import US_PER_S, format_instant
from authz.domain.kinds.access_token import token_id

app = typer.Typer(help="Create, list or revoke tokens of callers.", no_args_is_help=True)

_DEFAULT_LIFE_S = 90 * 86_400
Expires = Annotated[str, typer.Option("--expires", metavar="TIME", help=f"End, {TIME}. Default: in 90 days.")]
Caller = Annotated[
    Subject,
    typer.Argument(
        metavar="SERVICE",
        parser=lambda text: parse_subject(text, form="service:notebooks"),
        help="service:<id>, the program that the token is for.",
    ),
]
Token = Annotated[str, typer.Argument(metavar="TOKEN", help="The id of the token, or the token itself.")]


@on_server(app, writes=True, creates=True)
def create(context: Context, who: Caller, expires: Expires = "") -> None:
    """Create a token for service:<id>, and print it. It cannot be shown again."""
    client = context.client
    if expires:
        ends_at = future_time(client, expires, option="--expires")
    else:
        ends_at = (now_of(client) // US_PER_S + _DEFAULT_LIFE_S) * US_PER_S
    token = client.create_access_token(who, ends_at=ends_at, reason=context.reason)
    end = f"authz token revoke {token_id(token)}"
    try:
        if context.as_json:
            print_json({"token": token, "ends_at": ends_at})
        else:
            print(token)
        require_written()
    except OSError as error:
        raise precondition_failed(
            f"the token is not printed, and nothing can show it again: end it with `{end}`, and create"
            f" another ({error})"
        ) from error
    if not context.as_json:
        note = f"the token is shown only now; it proves {who} until {format_instant(ends_at)}"
        print(f"{note}; end it sooner with: {end}", file=sys.stderr)


@on_server(app, "list")
def list_(context: Context, subject: OnlySubject = None) -> None:
    """List tokens, also those that have ended."""
    context.list(AccessTokenFilter(subject=subject))


@on_server(app, writes=True)
def revoke(context: Context, token: Token) -> None:
    """End a token now."""
    id_ = token_id(token) or token
    context.client.revoke_access_token(id_, reason=context.reason)
    context.print_deleted(AccessTokenKey(id_), f"revoked access token {id_}")
