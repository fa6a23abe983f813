"""`authz privacy …`: exports, renames, erases, holds and restricts a subject."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from authz.cli import retention
from authz.cli.command import Context, on_server
from authz.cli.known_subjects import note_if_unknown
from authz.cli.options import OnlySubject, Reason, Who, Yes, parsed_option
from authz.cli.output import print_json
from authz.client import CallError, Client
from authz.domain.erasures import PSEUDONYM_PREFIX, ErasureCertificate
from authz.domain.errors import malformed
from authz.domain.exports import ExportEnd, ExportItem, ExportSection, SubjectExport
from authz.domain.ids import Subject, parse_subject
from authz.domain.instants import format_instant
from authz.domain.recipients import WatcherReport

app = typer.Typer(
    help="Export the data about a subject; rename, restrict or erase a subject; set how long data is kept.",
    no_args_is_help=True,
)

app.add_typer(retention.app, name="retention")

_MIN_PAUSE_S, _MAX_PAUSE_S = 0.1, 5.0
_WAIT_S = 60.0
_NOT_CONFIRMED = 1
_PSEUDONYM = re.compile(rf"(user|service):{PSEUDONYM_PREFIX}[0-9a-f]{{32}}")
Wait = Annotated[
    bool,
    typer.Option(
        "--wait/--no-wait", help="Whether to wait until every machine has confirmed, at most a minute."
    ),
]


class Format(StrEnum):
    """How an export is printed."""

    JSON = "json"
    HTML = "html"


@on_server(app, prints_json=False)
def export(
    context: Context,
    who: Who,
    form: Annotated[Format, typer.Option("--format", help="JSON to process, HTML to read.")] = Format.JSON,
) -> None:
    """Print everything that the service holds about a subject.

    In the JSON, which `authz import subject` reads, times are microseconds since 1970, UTC.
    """
    from authz.cli.export_json import json_lines
    from authz.cli.export_page import page_lines

    render = json_lines if form is Format.JSON else page_lines
    for line in render(_noting_nothing(context.client.privacy.export(who), who)):
        print(line)


def _noting_nothing(items: Iterable[ExportItem], who: Subject) -> Iterator[ExportItem]:
    """The items; at the end, says on standard error if nothing is held. Watchers are listed for anybody."""
    for item in items:
        yield item
        if isinstance(item, ExportEnd):
            held = sum(count for section, count in item.counts.items() if section != ExportSection.RECIPIENTS)
            if not held:
                print(f"note: nothing is held about {who}; compare the id", file=sys.stderr)


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of `authz privacy export`."""
    print(msgspec.json.format(msgspec.json.encode(msgspec.json.schema(SubjectExport))).decode())


@on_server(app)
def erase(
    context: Context,
    who: Who,
    why: Reason,
    resources_to: Annotated[
        Subject | None,
        parsed_option("--resources-to", "SUBJECT", parse_subject, "New owner of the subject's resources."),
    ] = None,
    orphan_resources: Annotated[
        bool, typer.Option("--orphan-resources", help="Leave its resources without an owner.")
    ] = False,
    wait: Wait = True,
    yes: Yes = False,
) -> None:
    """Erase a subject permanently: from records, from the change log, and from database and replica files."""
    if (resources_to is None) is not orphan_resources:
        raise malformed(
            "what becomes of resources", "is not clear; give --resources-to or --orphan-resources"
        )
    if resources_to is not None:
        note_if_unknown(context.client, resources_to)
    if not yes:
        note_if_unknown(context.client, who)  # a read is logged: with --yes, the certificate says it alone
        typer.confirm(f"Erase {who} permanently?", abort=True, err=True)
    try:
        certificate = context.client.privacy.erase(
            who, reason=why, resources_to=resources_to or "", orphan_resources=orphan_resources
        )
        if wait:
            certificate = _confirmed(context.client, certificate)
    except (CallError, KeyboardInterrupt) as error:
        if not (isinstance(error, CallError) and error.reason):  # a refusal has a reason, a lost answer none
            print("an erasure that has begun goes on; see it with: authz privacy erasures", file=sys.stderr)
        raise
    _show(certificate, as_json=context.as_json)
    if wait and not certificate.is_confirmed:
        print("not confirmed everywhere yet; look again with: authz privacy erasures", file=sys.stderr)
        raise typer.Exit(_NOT_CONFIRMED)


def _confirmed(client: Client, certificate: ErasureCertificate) -> ErasureCertificate:
    """The certificate once it is complete and every machine has confirmed it, or when that takes too long.

    Asks by the pseudonym, since each look is logged.
    """
    end_at_s, pause_s = time.monotonic() + _WAIT_S, _MIN_PAUSE_S
    while not certificate.is_confirmed and time.monotonic() < end_at_s:
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _MAX_PAUSE_S)
        (certificate,) = client.privacy.erasures(certificate.erasure.pseudonym)
    return certificate


@on_server(app)
def erasures(
    context: Context,
    subject: OnlySubject = None,
    export: Annotated[
        Path | None, typer.Option(help="Write all erasures to this file, for `authz restore --erasures`.")
    ] = None,
) -> None:
    """Print the certificates of erasures: removed data, and machines that have not confirmed."""
    if export is not None:
        found = context.client.privacy.erasure_list()
        export.write_bytes(msgspec.json.encode(found))
        print(f"{export} has {len(found.erasures)} erasures")
        return
    for certificate in context.client.privacy.erasures(subject or ""):
        _show(certificate, as_json=context.as_json)


@app.command("erase-log")
def erase_log(
    who: Who,
    pseudonym: Annotated[
        Subject,
        typer.Argument(
            metavar="PSEUDONYM", parser=parse_subject, help="user:erased-<id>, as the certificate has it."
        ),
    ],
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A file with lines of decisions.", exists=True, dir_okay=False),
    ],
) -> None:
    """Replace an erased subject by its pseudonym in a file of decisions that another program moved.

    Includes its rotated files. Needs no server; servers may write to the file meanwhile.
    """
    from authz.audit.lines import LinesFile

    if not _PSEUDONYM.fullmatch(str(pseudonym)):
        raise malformed(
            "PSEUDONYM",
            f"is `{pseudonym}`; copy all of `user:erased-…` from the certificate: `authz privacy erasures`",
        )
    lines = LinesFile(file, max_bytes=0, kept=0).replace(who, pseudonym)
    print(f"{file} and its rotated files: {lines} lines have {pseudonym} now")


@on_server(app, prints_json=False)
def forget_replica(
    context: Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the machine in certificates.")],
) -> None:
    """Remove a decommissioned machine, whose disk is destroyed, from all certificates."""
    context.client.privacy.forget_replica(name)
    print(f"{name} is in no certificate any more")


@on_server(app, prints_json=False)
def forget_watcher(
    context: Context,
    caller: Annotated[str, typer.Argument(metavar="CALLER", help="The watcher in certificates.")],
) -> None:
    """Remove a watcher that will not return, and keeps no data, from all certificates."""
    context.client.privacy.forget_watcher(caller)
    print(f"{caller} is in no certificate any more, unless it watches again")


@on_server(app, prints_json=False)
def release(context: Context, who: Who, why: Reason) -> None:
    """Allow writes to name an erased id again, for somebody new."""
    context.client.privacy.release(who, reason=why)
    print(f"{who} may be written again; nothing of the erased subject is under this id")


@on_server(app, prints_json=False)
def rename(
    context: Context,
    who: Who,
    to: Annotated[
        Subject, typer.Argument(metavar="TO", parser=parse_subject, help="The id that gets the records.")
    ],
    why: Reason,
    merge: Annotated[
        bool,
        typer.Option("--merge", help="Make one account of two, for good: the other id has records, too."),
    ] = False,
) -> None:
    """Move all records of a subject to another id, for a new login name or to merge two accounts."""
    counts = context.client.privacy.rename(who, to, reason=why, merge=merge)
    what = ", ".join(f"{kind} records: {count}" for kind, count in counts.items())
    print(f"{who} is {to} now; {what}")


@on_server(app, prints_json=False)
def hold(context: Context, who: Who, why: Reason) -> None:
    """Block the erasure of a subject, for a legal claim or a court order."""
    note_if_unknown(context.client, who)
    context.client.privacy.hold(who, reason=why)
    print(f"{who} is held: {why}")


@on_server(app, prints_json=False)
def release_hold(context: Context, who: Who, why: Reason) -> None:
    """End the hold on a subject, so that it can be erased."""
    context.client.privacy.release_hold(who, reason=why)
    print(f"{who} is held no more")


@on_server(app)
def holds(context: Context) -> None:
    """List all holds, with their reasons."""
    context.show(
        ("subject", "since", "by", "reason"),
        context.client.privacy.holds(),
        lambda each: (str(each.subject), format_instant(each.since), each.actor, each.reason),
    )


@on_server(app, prints_json=False)
def restrict(context: Context, who: Who, why: Reason) -> None:
    """Take all access from a subject and keep its data, while the data is in dispute."""
    note_if_unknown(context.client, who)
    context.client.privacy.restrict(who, reason=why)
    print(f"{who} is restricted: {why}")


@on_server(app, prints_json=False)
def lift_restriction(context: Context, who: Who, why: Reason) -> None:
    """End the restriction of a subject: its records give access again."""
    context.client.privacy.lift_restriction(who, reason=why)
    print(f"{who} is restricted no more")


@on_server(app)
def restrictions(context: Context) -> None:
    """List all restrictions, with their reasons."""
    context.show(
        ("subject", "since", "by", "reason"),
        context.client.privacy.restrictions(),
        lambda each: (
            str(each.restriction.entity.subject),
            format_instant(each.restriction.entity.since),
            each.actor,
            each.reason,
        ),
    )


def _show(certificate: ErasureCertificate, *, as_json: bool) -> None:
    if as_json:
        print_json(certificate)
        return
    record, finished = certificate.erasure, certificate.finished_at
    state = f"complete {format_instant(finished)}" if finished else record.status.lower()
    print(f"{record.pseudonym}  {state}{', released' if record.released else ''}")
    print(f"  begun {format_instant(record.started_at)} by {certificate.actor}: {record.reason}")
    for what, count in certificate.removed.items():
        print(f"  {what}: {count}")
    if finished and not certificate.removed:
        print("  nothing found: no record, change or decision named the subject; compare the id")
    for replica in certificate.replicas:
        said = "nothing left" if replica.is_cleared else "NOT CONFIRMED"
        print(f"  replica {replica.name}: {said}, last seen {format_instant(replica.seen_at)}")
    for asker in certificate.askers:
        until = format_instant(asker.last_at)
        print(f"  recipient {asker.caller}: asked {asker.times}, last {until}")
    for watcher in certificate.watchers:
        seen = format_instant(watcher.seen_at)
        print(f"  watcher {watcher.caller}: {_said(watcher)}, last seen {seen}")
    for label, texts in (("kept", certificate.kept), ("to do", certificate.left_to_operator)):
        for text in texts:
            print(f"  {label}: {text}")


def _said(watcher: WatcherReport) -> str:
    if watcher.has_acknowledged:
        return "acknowledged"
    return "sent, NOT ACKNOWLEDGED" if watcher.was_sent else "NOT ACKNOWLEDGED"
