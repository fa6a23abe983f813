"""`authz audit`: searches the change log and the decision log."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Annotated

import msgspec
import typer

from authz.cli.command import Context, on_server
from authz.cli.known_subjects import note_if_unknown, note_unknown
from authz.cli.options import TIME, OnlyKinds, OnlyResource, OnlySubject, OnlyWithin, parsed_option
from authz.cli.output import cell_text
from authz.client import DecisionEntry, LoggedChange
from authz.domain.entities import Entity, RetentionRule
from authz.domain.ids import parse_subject
from authz.domain.instants import Instant, format_instant, parse_instant
from authz.domain.retention import default_rule

app = typer.Typer(
    no_args_is_help=True, help="Search the change log and the decision log; sign and verify checkpoints."
)

_NOT_LOGGED = "this server logs no decisions in the database; set AUTHZ_DECISION_LOG=table on it"
_COLUMNS_OF_DECISIONS = ("time", "who", "asked", "subject", "action", "resource", "answer", "reason")
_COLUMNS = ("time", "revision", "who", "did", "record", "changed", "reason")
_WITHOUT_ID = {"authz", "unauthenticated"}
"""Principals of the log that are no subjects: the service itself, and a caller without a credential."""


def _parse_principal(text: str, *, field: str) -> str:
    return text if text in _WITHOUT_ID else str(parse_subject(text, field=field))


Since = Annotated[
    Instant | None, parsed_option("--since", "TIME", parse_instant, f"Only at or after this time, {TIME}.")
]
Before = Annotated[
    Instant | None, parsed_option("--until", "TIME", parse_instant, f"Only before this time, {TIME}.")
]
By = Annotated[
    str | None,
    parsed_option(
        "--by",
        "PRINCIPAL",
        _parse_principal,
        "Only by this caller, or on behalf of this person: service:<id> or user:<id>.",
    ),
]
OldestFirst = Annotated[bool, typer.Option("--oldest-first", help="Print the oldest first.")]
Limit = Annotated[int, typer.Option(min=0, help="Maximum number to print. 0: all.")]


@on_server(app)
def changes(
    context: Context,
    subject: OnlySubject = None,
    resource: OnlyResource = None,
    scope: OnlyWithin = None,
    kind: OnlyKinds = None,
    by: By = None,
    since: Since = None,
    until: Before = None,
    oldest_first: OldestFirst = False,
    limit: Limit = 100,
) -> None:
    """Print who changed what, when and why, the newest change first.

    With --json, a change has the whole record before and after.
    """
    found = context.client.audit.changes(
        kinds=kind or (),
        subject=subject,
        resource=resource,
        scope=scope,
        principal=by or "",
        since=since,
        until=until,
        oldest_first=oldest_first,
    )
    if not context.show(_COLUMNS, islice(found, limit or None), _cells, _whole):
        note_unknown(context.client, subject, scope)
        _note_if_unknown_principal(context, by)


@on_server(app)
def decisions(
    context: Context,
    subject: OnlySubject = None,
    resource: OnlyResource = None,
    by: By = None,
    action: Annotated[str, typer.Option(help="Only about this action.")] = "",
    allowed: Annotated[
        bool | None,
        typer.Option("--allowed/--denied", help="Only allowed decisions, or only denials."),
    ] = None,
    since: Since = None,
    until: Before = None,
    oldest_first: OldestFirst = False,
    limit: Limit = 100,
) -> None:
    """Print who got access to what, and which caller asked, from the decision log in the database.

    The newest entry comes first. With --json, an entry has all its fields.
    """
    found = context.client.audit.decisions(
        subject=subject,
        resource=resource,
        principal=by or "",
        action=action,
        allowed=allowed,
        since=since,
        until=until,
        oldest_first=oldest_first,
    )
    shown = context.show(_COLUMNS_OF_DECISIONS, islice(found, limit or None), _cells_of)
    if shown:
        return
    note_unknown(context.client, subject, None)
    _note_if_unknown_principal(context, by)
    if not context.client.audit.logs_to_database():
        print(f"note: {_NOT_LOGGED}", file=sys.stderr)


def _note_if_unknown_principal(context: Context, by: str | None) -> None:
    if by is not None and by not in _WITHOUT_ID:
        note_if_unknown(context.client, parse_subject(by))


def _cells_of(entry: DecisionEntry) -> Sequence[str]:
    return (
        format_instant(entry.at),
        f"{entry.caller} for {entry.person}" if entry.person else entry.caller,
        entry.method,
        entry.subject,
        entry.action,
        entry.resource,
        # A permitted call that ended with an error has let nobody in.
        "denied" if not entry.allowed else "allowed" if entry.code == "OK" else "failed",
        entry.reason,
    )


def _whole(change: LoggedChange) -> dict[str, object]:
    fields = msgspec.structs.asdict(change)
    mutation = fields.pop("mutation")
    return fields | {
        "operation": mutation.operation,
        "key": str(mutation.key),
        "before": change.before,
        "after": change.after,
    }


def _cells(change: LoggedChange) -> Sequence[str]:
    before, after = change.before, change.after
    if before is None and isinstance(after, RetentionRule):
        before = default_rule(after.data)  # which was in force
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
    return (
        f"{name} {cell_text(old[name], name) or '-'} > {cell_text(new[name], name) or '-'}"
        for name in old
        if old[name] != new[name]
    )
