"""`authz policy shadow`: evaluates a candidate policy on live checks, alongside the active policy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer

from authz.cli.command import Context, on_server
from authz.cli.options import DRAFT, TIME, Author, PolicyCourse, parsed_option
from authz.cli.output import FOUND_EXIT_CODE, print_json, print_rows
from authz.cli.policy_source import ACTIVE, version_number
from authz.client import ShadowReport
from authz.domain.decisions import Verdict
from authz.domain.ids import PLATFORM
from authz.domain.instants import Instant, format_instant, parse_instant
from authz.domain.shadow import PolicyShadow, ShadowExample, ShadowState

app = typer.Typer(help="Try a policy on live checks, without affecting any answer.", no_args_is_help=True)


@on_server(app)
def start(
    context: Context,
    version: Annotated[
        str,
        typer.Argument(metavar="VERSION", help="The candidate: `draft:NAME`, or the number of a version."),
    ],
    sample_rate: Annotated[
        float, typer.Option(help="Sampling rate of the compared checks: more than 0, at most 1.")
    ] = 0.01,
    budget_us: Annotated[
        int, typer.Option(help="Maximum microseconds per second that each serving process spends on it.")
    ] = 10_000,
    until: Annotated[Instant | None, parsed_option("--until", "TIME", parse_instant, f"End, {TIME}.")] = None,
    author: Author = "",
    course: PolicyCourse = None,
) -> None:
    """Evaluate a candidate policy on a sample of the live checks. No answer is affected.

    A shadow ends in an hour, unless --until says when.
    """
    if version in (ACTIVE, DRAFT):
        raise ValueError(f"`{version}` is no candidate; name a draft, or the number of another version")
    is_draft = version.startswith(DRAFT)
    candidate = version.removeprefix(DRAFT) if is_draft else version_number(version, course, ("draft:NAME",))
    report = context.client.policies.shadow.start(
        candidate,
        sample_rate=sample_rate,
        budget_us=budget_us,
        ends_at=until,
        author=author,
        course_id=course,
    )
    _print_heading(context, report)


@on_server(app)
def show(context: Context, course: PolicyCourse = None) -> None:
    """Show the differences that the last shadow found. Exit code: 0 none, 1 some, 2 there is no shadow."""
    report = context.client.policies.shadow.read(course_id=course)
    if report is None:
        where, option = ("", "") if course is None else (f" in course `{course}`", f" --course {course}")
        raise ValueError(f"no shadow was started{where}; start one with `authz policy shadow start{option}`")
    _print(report, context.as_json)


@on_server(app)
def stop(context: Context, course: PolicyCourse = None) -> None:
    """End the shadow on all servers. `show` has the final counts some seconds later."""
    _print_heading(context, context.client.policies.shadow.stop(course_id=course))


def _print_heading(context: Context, report: ShadowReport) -> None:
    if context.as_json:
        print_json(_data(report))
    else:
        print(_heading(report))


def _print(report: ShadowReport, as_json: bool) -> None:
    tally = report.tally
    if as_json:
        print_json(_data(report))
    else:
        print(_heading(report))
        print("\n".join(_summary(report)))
        if tally.cells:
            print()
            print_rows(("checks", "difference"), [(f"{n:,}", str(cell)) for cell, n in tally.cells])
        for example in tally.examples:
            print()
            print("\n".join(_lines(example)))
    if tally.differing:
        raise typer.Exit(FOUND_EXIT_CODE)


def _heading(report: ShadowReport) -> str:
    shadow, at = report.shadow, format_instant(report.shadow.ends_at)
    against = f"{_named(shadow)} alongside {_compared_with(shadow)}"
    match report.state:
        case ShadowState.RUNNING:
            return f"{against}, on {shadow.sample_rate * 100:.4g}% of the checks, until {at}"
        case ShadowState.ENDED:
            return f"{against}, on {shadow.sample_rate * 100:.4g}% of the checks, ended at {at}"
        case ShadowState.SUPERSEDED:
            return f"{against}: superseded, so nothing is compared; stop it, and start another"


def _summary(report: ShadowReport) -> Iterator[str]:
    tally = report.tally
    yield f"{tally.compared:,} checks compared, {tally.differing:,} decided differently"
    if tally.compared:
        spent = tally.elapsed_us / 1e6
        yield f"cost: {spent:,.2f} s in all, {tally.elapsed_us / tally.compared:.0f} us a check compared"
    if tally.skipped:
        budget = f"{report.shadow.budget_us:,} us"
        yield f"{tally.skipped:,} more were not compared: the budget of {budget} a second was spent"
    if tally.failed:
        yield f"{tally.failed:,} the candidate could not decide: {tally.last_failure}"
    uncounted = tally.differing - sum(each.checks for each in tally.cells)
    if uncounted > 0:
        yield f"{uncounted:,} of those decided differently are in other cells than these"


def _lines(example: ShadowExample) -> Iterator[str]:
    ref, purpose = example.resource, f" for {example.purpose}" if example.purpose else ""
    what = str(ref) if ref.id else f"a new {ref.type}"
    yield f"{example.subject} {example.cell.action} {what} in {example.scope}{purpose}: {example.cell}"
    yield f"  facts: {', '.join(example.facts) or 'none'}; at {format_instant(example.at)}"
    yield f"  now:   {_verdict_text(example.active)}"
    yield f"  then:  {_verdict_text(example.candidate)}"


def _verdict_text(verdict: Verdict | None) -> str:
    """The verdict in words, with its rule."""
    if verdict is None:
        return "not declared"
    found = f"{'allowed' if verdict.allowed else 'denied'}: {verdict.reason}"
    if verdict.inactive_reason is not None:
        found += f", {verdict.inactive_reason}"
    rule = verdict.rule
    if rule is not None:
        found += f" by `p, {', '.join(rule.fields)}` ({rule.source})"
    return found


def _compared_with(shadow: PolicyShadow) -> str:
    if shadow.scope == PLATFORM:
        return f"version {shadow.against_number}"
    own = shadow.against_course_number
    return f"version {own} of {shadow.scope}" if own else f"the platform's policy alone in {shadow.scope}"


def _named(shadow: PolicyShadow) -> str:
    return f"draft `{shadow.draft_id}`" if shadow.draft_id else f"version {shadow.number}"


def _data(report: ShadowReport) -> dict[str, object]:
    shadow, tally = msgspec.structs.asdict(report.shadow), msgspec.structs.asdict(report.tally)
    for name in ("id", "files", "scope"):
        del shadow[name]
    shadow["course_id"] = report.shadow.scope.id
    tally["cells"] = [each.cell._asdict() | {"checks": each.checks} for each in report.tally.cells]
    tally["examples"] = [_example_data(each) for each in report.tally.examples]
    return shadow | {"state": report.state} | tally


def _example_data(example: ShadowExample) -> dict[str, object]:
    found = msgspec.structs.asdict(example) | example.cell._asdict()
    del found["cell"]
    verdicts = {"active": _verdict_text(example.active), "candidate": _verdict_text(example.candidate)}
    return found | verdicts
