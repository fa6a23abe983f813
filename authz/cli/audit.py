"""`authz audit`: searches the change log and the decision log."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Annotated

import msgspec
import typer

from authz.cli.command import Server, on_server
from authz.cli.options import OnlyScope, OnlySubject
from authz.cli.output import print_json, print_rows
from authz.client import DecisionEntry, LoggedChange
from authz.domain.entities import Entity, EntityKind
from authz.domain.ids import ResourceRef, parse_resource_ref
from authz.domain.instants import Instant, format_instant, parse_instant

app = typer.Typer(
    no_args_is_help=True, help="Search the change log and the decision log; sign and verify checkpoints."
)

_NOT_LOGGED = "this server logs no decisions in the database; set AUTHZ_DECISION_LOG=table on it"
_COLUMNS_OF_DECISIONS = ("time", "who", "asked", "subject", "action", "resource", "answer", "reason")
_COLUMNS = ("time", "revision", "who", "did", "record", "changed", "reason")
OnlyResource = Annotated[
    ResourceRef | None,
    typer.Option("--resource", metavar="RESOURCE", parser=parse_resource_ref, help="Only of <type>:<id>."),
]
Since = Annotated[str, typer.Option(help="Only at or after this time, such as 2026-09-01T08:00:00Z.")]
Until = Annotated[str, typer.Option(help="Only before this time.")]
OldestFirst = Annotated[bool, typer.Option("--oldest-first", help="Print the oldest first.")]
Limit = Annotated[int, typer.Option(min=0, help="Maximum number to print. 0: all.")]


@app.command("changes")
@on_server()
def changes(
    server: Server,
    subject: OnlySubject = None,
    resource: OnlyResource = None,
    scope: OnlyScope = None,
    kind: Annotated[list[EntityKind] | None, typer.Option(help="Only records of this kind.")] = None,
    by: Annotated[
        str, typer.Option(help="Only by this caller, or on behalf of this person: service:<id> or user:<id>.")
    ] = "",
    since: Since = "",
    until: Until = "",
    oldest_first: OldestFirst = False,
    limit: Limit = 100,
) -> None:
    """Print who changed what, when and why, the newest change first.

    With --json, prints one change per line, with the whole record before and after.
    """
    found = server.client.audit.changes(
        kinds=kind or (),
        subject=subject,
        resource=resource,
        scope=scope,
        principal=by,
        since=instant(since, "--since"),
        until=instant(until, "--until"),
        oldest_first=oldest_first,
    )
    shown = islice(found, limit or None)
    if server.as_json:
        for change in shown:
            print_json(_whole(change))
    else:
        print_rows(_COLUMNS, map(_cells, shown))


@app.command("decisions")
@on_server()
def decisions(
    server: Server,
    subject: OnlySubject = None,
    resource: OnlyResource = None,
    by: Annotated[
        str, typer.Option(help="Only by this caller, or on behalf of this person: service:<id> or user:<id>.")
    ] = "",
    action: Annotated[str, typer.Option(help="Only about this action.")] = "",
    allowed: Annotated[
        bool | None,
        typer.Option("--allowed/--denied", help="Only allowed decisions, or only denials."),
    ] = None,
    since: Since = "",
    until: Until = "",
    oldest_first: OldestFirst = False,
    limit: Limit = 100,
) -> None:
    """Print who got access to what, and which caller asked, from the decision log in the database.

    The newest entry comes first. With --json, prints one entry per line, with all its fields.
    """
    found = server.client.audit.decisions(
        subject=subject,
        resource=resource,
        principal=by,
        action=action,
        allowed=allowed,
        since=instant(since, "--since"),
        until=instant(until, "--until"),
        oldest_first=oldest_first,
    )
    shown = [*islice(found, limit or None)]
    if not shown and not server.client.audit.logs_to_database():
        print(f"note: {_NOT_LOGGED}", file=sys.stderr)
    server.show(_COLUMNS_OF_DECISIONS, shown, _cells_of)


def _cells_of(entry: DecisionEntry) -> Sequence[str]:
    return (
        format_instant(entry.at),
        f"{entry.caller} for {entry.person}" if entry.person else entry.caller,
        entry.method,
        entry.subject,
        entry.action,
        entry.resource,
        "allowed" if entry.allowed else "denied",
        entry.reason,
    )


def instant(text: str, option: str) -> Instant | None:
    """The time of an option; None if it is not given."""
    return parse_instant(text, field=option) if text else None


def _whole(change: LoggedChange) -> dict[str, object]:
    told = {name: getattr(change, name) for name in change.__struct_fields__ if name != "mutation"}
    mutation = change.mutation
    return told | {
        "operation": mutation.operation,
        "key": str(mutation.key),
        "before": change.before,
        "after": change.after,
    }


def _cells(change: LoggedChange) -> Sequence[str]:
    before, after = change.before, change.after
    return (
        format_instant(change.committed_at),
        str(change.revision),
        change.actor,
        "deleted" if after is None else "created" if before is None else "changed",
        str(change.mutation.key),
        "" if before is None or after is None else ", ".join(_differences(before, after)),
        change.reason,
    )


def _differences(before: Entity, after: Entity) -> Iterable[str]:
    old, new = (msgspec.structs.asdict(each) for each in (before, after))
    return (f"{name} {_text(old[name])} > {_text(new[name])}" for name in old if old[name] != new[name])


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value in (None, "") else str(value)
