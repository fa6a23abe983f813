"""How commands write one record, and how they print records: aligned columns with headings, or JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
import typer

from authz.cli.connection import connect
from authz.cli.output import print_rows
from authz.client import Client
from authz.domain.entities import KINDS, Filter, Key, Versioned
from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.instants import Instant, format_instant, parse_instant
from authz.domain.mutations import Expectation, Mutation, Operation, Precondition, update

Reason = Annotated[str, typer.Option("--reason", help="Why, for the change log. No personal data.")]
StartsAt = Annotated[str, typer.Option("--from", help="Start, like 2026-09-01T08:00:00Z, or none.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Until = Annotated[str, typer.Option("--until", help="End, like 2026-12-31 (midnight, UTC), or none.")]

_COLUMNS = {
    "course": ("id", "state", "ai_enabled"),
    "session": ("id", "course_id", "state", "starts_at", "ends_at", "open_to_course"),
    "membership": ("subject", "scope", "role", "status", "starts_at", "ends_at", "suspended_until", "source"),
    "resource": ("key", "scope", "owner", "visibility", "published"),
    "share": ("resource", "subject", "level"),
    "account": ("subject", "status", "suspended_until"),
}
_COLUMNS_OF_FILTER = {kind.filter_type: _COLUMNS[kind.name] for kind in KINDS.values()}


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


def updated(key: Key, values: dict[str, Any]) -> Mutation:
    """The update of a record. Raises `InvalidArgumentError` if no option gives a value."""
    if not values:
        text = f"nothing to change in {key}; name a field with an option, see `--help`"
        raise InvalidArgumentError(ErrorReason.MISSING_FIELD, text)
    return update(key, **values)


def write_and_print(
    client: Client, mutations: list[Mutation], wanted: Filter[Any], *, reason: str, as_json: bool
) -> None:
    """Write the mutations, if any, then print the records that a filter finds after the write."""
    if mutations:
        client.write(mutations, reason=reason)
    print_records(wanted, client.read(wanted), as_json)


def delete_record(key: Key, yes: bool, reason: str, address: str, database: str) -> None:
    """Delete a record that exists, once a person has confirmed it."""
    if not yes:
        typer.confirm(f"Delete {key} with everything in it?", abort=True, err=True)
    with connect(address, database) as client:
        there = Precondition(key, Expectation.EXISTS)
        client.write([Mutation(Operation.DELETE, key)], preconditions=[there], reason=reason)
    print(f"deleted {key}")


def print_records(wanted: Filter[Any], found: Iterable[Versioned[Any]], as_json: bool) -> None:
    """Print the records that a filter has found. JSON has a record a line, with all its fields."""
    records = list(found)  # before an error, print nothing
    if as_json:
        for versioned in records:
            print(msgspec.json.encode(versioned).decode())
        return
    columns = _COLUMNS_OF_FILTER[type(wanted)]
    headings = ["resource" if column == "key" else column for column in columns]
    print_rows(headings, ([_text(getattr(each.entity, name)) for name in columns] for each in records))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return format_instant(value)
    return "" if value is None else str(value)
