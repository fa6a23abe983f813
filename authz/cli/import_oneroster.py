"""`authz import oneroster`: import a OneRoster export."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import msgspec
import typer

from authz.cli.command import Context
from authz.cli.import_report import FAULTS_EXIT_CODE, finish_import, import_reason, print_capped
from authz.cli.interrupted_import import import_mutations
from authz.cli.options import now_of
from authz.client import Client
from authz.client.errors import CallError
from authz.client.questions import ImportOutcome
from authz.client.sync.directory import EntityT
from authz.domain.entities import Filter, Versioned
from authz.domain.errors import FailedPreconditionError, malformed, precondition_failed
from authz.domain.ids import parse_id
from authz.domain.mutations import MAX_MUTATIONS_PER_WRITE

if TYPE_CHECKING:
    from authz.importers.oneroster.plan import Change, Plan
    from authz.importers.oneroster.rows import ReadOptions, Roster
    from authz.importers.reader import DirectoryReader

PathArgument = Annotated[
    Path,
    typer.Argument(metavar="PATH", help="A OneRoster 1.1 or 1.2 export: a folder, or a zip; - for stdin."),
]
RoleMap = Annotated[
    list[str] | None,
    typer.Option("--role-map", metavar="ROLE=ROLE", help="For example proctor=auditor. May be repeated."),
]
Source = Annotated[str, typer.Option(help="The name of this roster, if you import several.")]
TimeZone = Annotated[str, typer.Option(help="Of dates without one, for example Europe/Berlin.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would change, and write nothing.")]
AllOrNothing = Annotated[bool, typer.Option("--all-or-nothing", help="Write nothing if any row is at fault.")]
MaxRemovals = Annotated[
    float, typer.Option(min=0, max=1, help="The fraction of memberships that an import may end, 0 to 1.")
]
AllowRemovals = Annotated[bool, typer.Option("--allow-removals", help="End any number of memberships.")]
DeleteClasses = Annotated[
    bool, typer.Option("--delete-classes", help="Delete courses, with their content, instead of concluding.")
]
IdMap = Annotated[Path | None, typer.Option(help="A CSV file for ids that are replaced as too long.")]


def oneroster(
    context: Context,
    path: PathArgument,
    role_map: RoleMap = None,
    source: Source = "oneroster",
    time_zone: TimeZone = "UTC",
    dry_run: DryRun = False,
    all_or_nothing: AllOrNothing = False,
    max_removals: MaxRemovals = 0.1,
    allow_removals: AllowRemovals = False,
    delete_classes: DeleteClasses = False,
    id_map: IdMap = None,
) -> None:
    """Import classes as courses and enrollments as memberships. A repeated import changes nothing.

    The roster changes only memberships that it wrote itself. It lifts no suspension that a person gave.
    Exit code: 0 imported, 1 some rows are at fault, 2 an error: nothing was imported, or what it says.
    """
    from authz.importers.oneroster.read import read_oneroster
    from authz.importers.oneroster.reconcile import plan_import

    roster = read_oneroster(path, _options(role_map, source, time_zone))
    _save_ids(roster, id_map, dry_run)
    directory: DirectoryReader = _EmptyDirectory()
    now = time.time_ns() // 1000
    if not (dry_run and _is_missing(context.database)):
        # An end by another clock than that of the server would leave access open until then.
        directory, now = context.client, now_of(context.client)
    plan = plan_import(roster, directory, now=now, deletes_classes=delete_classes)
    print_capped("note", map(str, plan.notes))
    if dry_run:
        _print_dry_run(plan)
        return
    _require_permission(plan, 1 if allow_removals else max_removals, all_or_nothing)
    outcome = _write(context.client, plan, path, all_or_nothing)
    _print_ended(plan)
    finish_import(outcome, plan.changes, plan.faults)


def _options(role_map: list[str] | None, source: str, time_zone: str) -> ReadOptions:
    from authz.importers.oneroster.rows import DEFAULT_ROLES, ReadOptions

    try:
        zone = ZoneInfo(time_zone)
    except (KeyError, ValueError, OSError):
        raise malformed(
            "--time-zone", f"`{time_zone}` is not known; use a name like `Europe/Berlin`"
        ) from None
    roles = dict(DEFAULT_ROLES) | dict(_pair(text) for text in role_map or ())
    return ReadOptions(source=parse_id(source, field="--source"), roles=roles, zone=zone)


def _pair(text: str) -> tuple[str, str]:
    external, equals, internal = text.rpartition("=")
    if not (external.strip() and equals and internal):
        raise malformed("--role-map", f"`{text}` is not like `proctor=auditor`")
    return external.strip().lower(), internal


def _save_ids(roster: Roster, id_map: Path | None, dry_run: bool) -> None:
    from authz.importers.report import RowFault

    replaced = len(roster.ids.replaced)
    if replaced and id_map is None:
        text = f"{replaced} ids are too long and were replaced; record the originals with `--id-map FILE`"
        roster.notes.append(RowFault("sourcedId", 0, text))
    elif replaced and id_map is not None and not dry_run:
        roster.ids.save(id_map)


class _EmptyDirectory:
    """The directory of a database that does not exist yet."""

    def read(self, _: Filter[EntityT]) -> Iterator[Versioned[EntityT]]:
        """No record."""
        return iter(())


def _is_missing(database: str) -> bool:
    """Whether the database is a file that is not there."""
    from authz.store import sqlite_file

    file = sqlite_file(database) if database else None
    return file is not None and not file.exists()


def _print_dry_run(plan: Plan) -> None:
    print_capped("failed", map(str, plan.faults))
    for change in plan.changes:
        print(f"{change.action.value} {change}")
    print(f"would write {len(plan.changes)}, unchanged {plan.unchanged}, failed {len(plan.faults)}")
    if plan.faults:
        raise typer.Exit(FAULTS_EXIT_CODE)


def _print_ended(plan: Plan) -> None:
    from authz.importers.oneroster.plan import Action

    for action in (Action.SUSPEND, Action.REMOVE):
        print_capped(action.value, (str(change) for change in plan.changes if change.action is action))


def _require_permission(plan: Plan, max_removals: float, all_or_nothing: bool) -> None:
    """Raise `FailedPreconditionError` before anything is written."""
    if all_or_nothing and plan.faults:
        print_capped("failed", map(str, plan.faults))
        text = f"rows at fault: {len(plan.faults)}; nothing was written, because of `--all-or-nothing`"
        raise precondition_failed(text)
    try:
        plan.require_few_removals(max_removals)
    except FailedPreconditionError:
        print_capped("failed", map(str, plan.faults))
        _print_ended(plan)
        raise


def _write(client: Client, plan: Plan, path: Path, all_or_nothing: bool) -> ImportOutcome:
    reason = import_reason(path)
    # What the server could refuse has been looked at. Only one write can hold a plan together.
    together = plan.changes if all_or_nothing and len(plan.changes) <= MAX_MUTATIONS_PER_WRITE else []
    if together:
        _write_together(client, together, reason)
    outcome = import_mutations(client, plan.mutations, total=len(plan.changes), reason=reason)
    written, unchanged = outcome.written + len(together), outcome.unchanged + plan.unchanged - len(together)
    return msgspec.structs.replace(outcome, written=written, unchanged=unchanged)


def _write_together(client: Client, changes: list[Change], reason: str) -> None:
    from authz.importers.report import place

    try:
        client.write([change.mutation for change in changes], reason=reason)
    except CallError as error:
        found = re.match(r"mutations\[(\d+)\]: ", error.message)
        if found is None:
            raise
        change = changes[int(found[1])]
        text = f"{place(change.file, change.line)}: {error.message[found.end() :]}"
        raise precondition_failed(f"{text}; nothing was written, because of `--all-or-nothing`") from None
