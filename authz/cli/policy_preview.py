"""`authz policy preview`: who would gain and lose what, in the directory of a server as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from authz.cli.command import Context, on_server
from authz.cli.options import PolicyCourse, Version
from authz.cli.output import FOUND_EXIT_CODE, json_of, print_json, print_rows, progress_bar
from authz.cli.policy_report import changes_from_active, counted
from authz.cli.policy_source import every_fault, read_source, version_or_files
from authz.client.imports import Progress as Advance
from authz.domain.decisions import Verdict
from authz.domain.impact import (
    MAX_EXAMPLES,
    MAX_LARGEST,
    AccessChange,
    Impact,
    PreviewProgress,
    PreviewTotals,
    RecentDecisions,
)
from authz.domain.instants import format_instant

_COLUMNS = ("subject", "in", "change", "resources", "example", "now", "then")


@on_server()
def preview(
    context: Context,
    policy: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="A policy folder; with --course, a file."),
    ] = None,
    version: Version = None,
    course: PolicyCourse = None,
    examples: Annotated[
        int, typer.Option(min=1, max=MAX_EXAMPLES, help="How many resources each change names.")
    ] = 1,
    largest: Annotated[
        int, typer.Option(min=1, max=MAX_LARGEST, help="How many rows to print, the largest first.")
    ] = 20,
) -> None:
    """Show who would gain and lose access if a policy were active. Exit code: 0 nothing changes, 1 something.

    With --json, prints every row as it is found, a subject a line, and the totals last.
    """
    source, policies = _source_of(context, policy, version, course), context.client.policies
    events = policies.preview(source, course_id=course, max_examples=examples, max_largest=largest)
    with every_fault(context.client, source, course):
        totals = _totals_of(_with_progress(events), context.as_json)
    changes = changes_from_active(context.client, source, course)
    declarations = () if changes is None else changes.declarations
    if context.as_json:
        print_json({"totals": _totals_data(totals), "declarations": declarations})
    else:
        for line in declarations:
            print(line)
        _print(totals, course)
    if totals.rows or declarations:  # an invariant may go although nobody gains anything yet
        raise typer.Exit(FOUND_EXIT_CODE)


def _source_of(
    context: Context, policy: Path | None, version: str | None, course: str | None
) -> dict[str, str] | int:
    if policy is not None and version is None:
        return read_source(policy, course)
    if policy is None and version is not None:
        return version_or_files(context.client, version, course)
    raise ValueError("name a policy folder, or a version by `--version`")


def _with_progress(
    events: Iterable[PreviewProgress | Impact | PreviewTotals],
) -> Iterator[Impact | PreviewTotals]:
    advance: Advance | None = None
    with ExitStack() as shown:
        for event in events:
            if isinstance(event, PreviewProgress):
                advance = advance or shown.enter_context(progress_bar("memberships", event.total))
                advance(event.members)
            else:
                yield event


def _totals_of(events: Iterable[Impact | PreviewTotals], as_json: bool) -> PreviewTotals:
    for event in events:
        if isinstance(event, PreviewTotals):
            return event
        if as_json:
            for row in _row_data(event):
                print_json(row)
    raise ValueError("the server ended the preview without its totals; preview again")


def _print(totals: PreviewTotals, course: str | None) -> None:
    now = format_instant(totals.now)
    # The version in the totals is the platform's, and means nothing to who knows those of the course.
    active = f"what is active in course `{course}`" if course else f"version {totals.policy_version}"
    against = f"against {active}, as the directory stands at {now}"
    if not totals.rows:
        print(f"nobody gains or loses anything {against}")
        _print_recent(totals.recent)
        return
    for total in totals.kinds:
        change = total.kind.said_of(total.subjects)
        # Without this, 300 students who lose one material would read as 300 materials.
        each = ", counted for each membership" if total.subjects > 1 else ""
        print(f"{counted(total.subjects, 'membership')} {change}: {counted(total.count, 'resource')}{each}")
    print(f"{counted(totals.rows, 'row')} in {counted(totals.scopes, 'scope')} {against}")
    print()
    rows = [
        (str(subject), str(impact.scope), *_cells(change))
        for impact in totals.largest
        for subject in impact.subjects
        for change in impact.changes
    ]
    print_rows(_COLUMNS, rows)
    left = totals.rows - len(totals.largest)
    if left:
        print(f"and {counted(left, 'row')} more; --json prints all of them")
    _print_recent(totals.recent)


def _print_recent(recent: RecentDecisions | None) -> None:
    if recent is not None:
        logged = f"the last {recent.count:,} logged decisions, since {format_instant(recent.since)}"
        print(f"of {logged}, {recent.changed:,} would change")


def _cells(change: AccessChange) -> tuple[str, ...]:
    shown = ", ".join(map(str, change.examples))
    return (
        str(change.kind),
        str(change.count),
        shown,
        _reason(change.before),
        _reason(change.after),
    )


def _reason(verdict: Verdict | None) -> str:
    if verdict is None:
        return "not declared"
    word = "allowed" if verdict.allowed else "denied"
    return f"{word} by {verdict.rule.source}" if verdict.rule is not None else f"{word}: {verdict.reason}"


def _row_data(impact: Impact) -> Iterator[dict[str, object]]:
    scope, changes = json_of(impact.scope), json_of([_change_data(change) for change in impact.changes])
    for subject in impact.subjects:
        yield {"subject": subject, "scope": scope, "changes": changes}


def _change_data(change: AccessChange) -> dict[str, object]:
    return change.kind._asdict() | {
        "count": change.count,
        "examples": [{"type": ref.type, "id": ref.id, "scope": scope} for ref, scope in change.examples],
        "before": _verdict_data(change.before),
        "after": _verdict_data(change.after),
    }


def _verdict_data(verdict: Verdict | None) -> dict[str, object] | None:
    if verdict is None:
        return None
    return {name: getattr(verdict, name) for name in ("allowed", "reason", "rule", "inactive_reason")}


def _totals_data(totals: PreviewTotals) -> dict[str, object]:
    data = msgspec.structs.asdict(totals)
    data["kinds"] = [
        each.kind._asdict() | {"subjects": each.subjects, "count": each.count} for each in totals.kinds
    ]
    data["largest"] = [row for impact in totals.largest for row in _row_data(impact)]
    return data
