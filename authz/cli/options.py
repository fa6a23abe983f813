"""The arguments and options of the commands on records, parsed."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from authz.domain.entities import Key
from authz.domain.errors import ErrorReason, InvalidArgumentError, malformed
from authz.domain.ids import ResourceRef, Scope, Subject, parse_resource_ref, parse_scope, parse_subject
from authz.domain.instants import US_PER_S, Instant, parse_instant
from authz.domain.mutations import Mutation, update

Who = Annotated[
    Subject, typer.Argument(metavar="SUBJECT", parser=parse_subject, help="user:<id> or service:<id>.")
]
Where = Annotated[
    Scope, typer.Argument(metavar="SCOPE", parser=parse_scope, help="course:<id>, session:<id> or platform.")
]
What = Annotated[
    ResourceRef, typer.Argument(metavar="RESOURCE", parser=parse_resource_ref, help="<type>:<id>.")
]
DATABASE_FLAGS = ("--database", "--database-url")
"""Of AUTHZ_DATABASE_URL: the short one in docs, and the one that follows from the name."""
Database = Annotated[
    str | None,
    typer.Option(*DATABASE_FLAGS, help="sqlite:///file, sqlite:////absolute/file or postgresql://…."),
]
OnlySubject = Annotated[
    Subject | None,
    typer.Option(
        "--subject", metavar="SUBJECT", parser=parse_subject, help="Only of user:<id> or service:<id>."
    ),
]
OnlyScope = Annotated[
    Scope | None,
    typer.Option("--scope", metavar="SCOPE", parser=parse_scope, help="Only in course:<id> or session:<id>."),
]
StartsAt = Annotated[str, typer.Option("--from", help="Start, like 2026-09-01T08:00:00Z, or none.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the change log. No personal data.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Until = Annotated[str, typer.Option("--until", help="End, like 2026-12-31 (midnight, UTC), or none.")]


def given(**options: Any) -> dict[str, Any]:
    """The options that are given, as values of fields."""
    return {name: value for name, value in options.items() if value is not None}


def given_times(*, starts_at: str = "", ends_at: str = "") -> dict[str, Instant | None]:
    """The times that are given by `--from` and `--until`, as values of fields; `none` empties a field."""
    options = {"starts_at": ("--from", starts_at), "ends_at": ("--until", ends_at)}
    return {
        name: None if text == "none" else parse_instant(text, field=option)
        for name, (option, text) in options.items()
        if text
    }


def suspension_end(until: str) -> Instant | None:
    """When a suspension ends by itself; None for never. Raises `InvalidArgumentError` as `future_time`."""
    return None if until in ("", "none") else future_time(until, option="--until")


def future_time(text: str, *, option: str) -> Instant:
    """The time that an option gives. Raises `InvalidArgumentError` for a time that is over.

    A suspension until then would suspend nobody, and look as if it did.
    """
    instant = parse_instant(text, field=option)
    if instant <= time.time() * US_PER_S:
        raise malformed(option, f"`{text}` is in the past, so this would have no effect; give a later time")
    return instant


def updated(key: Key, values: dict[str, Any]) -> Mutation:
    """The update of a record. Raises `InvalidArgumentError` if no option gives a value."""
    if not values:
        text = f"nothing to change in {key}; name a field with an option, see `--help`"
        raise InvalidArgumentError(ErrorReason.MISSING_FIELD, text)
    return update(key, **values)
