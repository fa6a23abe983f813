"""The arguments and options that several commands share, each defined once, and how they are parsed."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer

from authz.client import CallError, Client
from authz.domain.entities import EntityKind, Key
from authz.domain.errors import ErrorReason, InvalidArgumentError, malformed
from authz.domain.ids import (
    ResourceRef,
    Scope,
    Subject,
    parse_id,
    parse_resource_ref,
    parse_scope,
    parse_subject,
)
from authz.domain.instants import Instant, format_instant, from_datetime, parse_instant, to_datetime
from authz.domain.mutations import Mutation, update

DRAFT = "draft:"
"""How the name of a draft begins where the name of a version is possible, too."""
TIME = "such as 2026-12-31T18:00:00Z, or 2026-12-31 for midnight, UTC"


def parsed_option(flag: str, metavar: str, parse: Callable[..., Any], help_: str) -> Any:
    """An option whose value `parse` reads. An error names the flag."""
    return typer.Option(flag, metavar=metavar, parser=lambda text: parse(text, field=flag), help=help_)


Who = Annotated[
    Subject, typer.Argument(metavar="SUBJECT", parser=parse_subject, help="user:<id> or service:<id>.")
]
Where = Annotated[
    Scope, typer.Argument(metavar="SCOPE", parser=parse_scope, help="course:<id>, session:<id> or platform.")
]
What = Annotated[
    ResourceRef, typer.Argument(metavar="RESOURCE", parser=parse_resource_ref, help="<type>:<id>.")
]
Action = Annotated[str, typer.Argument(metavar="ACTION", help="Such as read.")]
AskedResource = Annotated[
    str, typer.Argument(metavar="RESOURCE", help="<type>:<id>, or only the type for create.")
]
DraftName = Annotated[
    str,
    typer.Argument(
        metavar="DRAFT", parser=lambda text: text.removeprefix(DRAFT), help="The name of the draft."
    ),
]
Folder = Annotated[
    Path | None, typer.Argument(metavar="FOLDER", help="A policy folder. Default: the active version.")
]

OnlySubject = Annotated[
    Subject | None,
    parsed_option("--subject", "SUBJECT", parse_subject, "Only of user:<id> or service:<id>."),
]
OnlyResource = Annotated[
    ResourceRef | None, parsed_option("--resource", "RESOURCE", parse_resource_ref, "Only of <type>:<id>.")
]
OnlyScope = Annotated[
    Scope | None,
    parsed_option(
        "--scope",
        "SCOPE",
        parse_scope,
        "Only in course:<id>, without its sessions, session:<id> or platform.",
    ),
]
_WITHIN = "Only in course:<id>, with its sessions, session:<id> or platform."
OnlyWithin = Annotated[Scope | None, parsed_option("--scope", "SCOPE", parse_scope, _WITHIN)]
OnlyContentWithin = Annotated[
    Scope | None,
    parsed_option(
        "--scope", "SCOPE", parse_scope, "Only what is in course:<id>, with its sessions, or session:<id>."
    ),
]
OnlyWithinAny = Annotated[
    list[Scope] | None, parsed_option("--scope", "SCOPE", parse_scope, f"{_WITHIN} May be repeated.")
]
OnlyKinds = Annotated[
    list[EntityKind] | None, typer.Option("--kind", help="Only records of this kind. May be repeated.")
]
OnlyRole = Annotated[str, typer.Option("--role", help="Only this role. Default: every role.")]
OnlyType = Annotated[str, typer.Option("--type", help="Only this type. Default: every type.")]

StartsAt = Annotated[str, typer.Option("--from", metavar="TIME", help=f"Start, {TIME}.")]
Until = Annotated[str, typer.Option("--until", metavar="TIME", help=f"End, {TIME}.")]
AsOf = Annotated[
    dt.datetime | None,
    parsed_option(
        "--as-of",
        "TIME",
        lambda text, field: to_datetime(parse_instant(text, field=field)),
        f"At another time, by the records of then (past) or of now (future), {TIME}.",
    ),
]

Reason = Annotated[str, typer.Option("--reason", help="Why, for the change log. No personal data.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print everything, however much there is.")]

Author = Annotated[str, typer.Option("--author", help="Who makes the change. Default: the caller.")]
WeakenInvariants = Annotated[
    bool,
    typer.Option(
        "--weaken-invariants", help="Publish also if invariants cover less than those of the active version."
    ),
]
PolicyCourse = Annotated[
    str | None,
    parsed_option(
        "--course", "COURSE", parse_id, "The id of a course, for its own policy: one file, not a folder."
    ),
]
Version = Annotated[
    str | None,
    typer.Option(
        "--version",
        help="A version on the server: `active`, a number, or `draft:NAME`; or `shipped`, the policy of this"
        " release.",
    ),
]

DATABASE_FLAGS = ("--database", "--database-url")
"""Of AUTHZ_DATABASE_URL: the short one in docs, and the one that follows from the name."""


def given(**options: Any) -> dict[str, Any]:
    """The options that are given, as values of fields."""
    return {name: value for name, value in options.items() if value is not None}


def given_times(*, starts_at: str, ends_at: str) -> dict[str, Instant | None]:
    """The times that are given by `--from` and `--until`, as values of fields; `none` empties a field."""
    options = {"starts_at": ("--from", starts_at), "ends_at": ("--until", ends_at)}
    return {
        name: None if text == "none" else parse_instant(text, field=option)
        for name, (option, text) in options.items()
        if text
    }


def suspension_end(client: Client, until: str) -> Instant | None:
    """When a suspension ends by itself; None for never. Raises `InvalidArgumentError` as `future_time`."""
    return None if until in ("", "none") else future_time(client, until, option="--until")


def future_time(client: Client, text: str, *, option: str) -> Instant:
    """The time that an option gives. Raises `InvalidArgumentError` for a time that is over.

    A suspension until then would suspend nobody, and look as if it did.
    """
    instant = parse_instant(text, field=option)
    require_future(client, instant, text, option=option)
    return instant


def require_future(client: Client, instant: Instant, text: str, *, option: str) -> None:
    """Raise `InvalidArgumentError` for a time, given as `text`, that is over by the clock of the server."""
    now = now_of(client)
    if instant <= now:
        problem = f"`{text}` is in the past, so this would have no effect; give a later time"
        raise malformed(option, f"{problem} (it is {format_instant(now)})")


def now_of(client: Client) -> Instant:
    """The time of the server, or of this machine if the caller may not read there."""
    try:
        return from_datetime(client.server_time())
    except CallError as error:
        if error.code is not grpc.StatusCode.PERMISSION_DENIED:
            raise
        return time.time_ns() // 1000


def updated(key: Key, values: dict[str, Any]) -> Mutation:
    """The update of a record. Raises `InvalidArgumentError` if no option gives a value."""
    if not values:
        text = f"nothing to change in {key}; name a field with an option, see `--help`"
        raise InvalidArgumentError(ErrorReason.MISSING_FIELD, text)
    return update(key, **values)
