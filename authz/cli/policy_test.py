"""`authz policy test`: run the tests of a policy, and say what none of them touches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from xml.etree import ElementTree

import msgspec
import typer

from authz.cli.command import Context, on_server
from authz.cli.options import Folder, Version
from authz.cli.output import FOUND_EXIT_CODE, print_json
from authz.cli.policy_source import read_policy
from authz.domain.errors import escaped

if TYPE_CHECKING:
    from authz.runtime.policy_cases import Report

_MAX_LISTED = 10


@on_server()
def test(
    context: Context,
    folder: Folder = None,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit report to this file.")] = None,
    version: Version = None,
) -> None:
    """Run tests/*.toml of a policy. Exit code: 0 all passed, 1 some failed, 2 error."""
    from authz.runtime.policy_cases import run_policy_tests

    report = run_policy_tests(read_policy(context, folder, version).files)
    if junit is not None:
        _write_junit(report, junit)
    if context.as_json:
        print_json({"passed": report.passed, "failed": len(report.failed)} | msgspec.structs.asdict(report))
    else:
        _print(report)
    if report.failed:
        raise typer.Exit(FOUND_EXIT_CODE)


def _print(report: Report) -> None:
    for outcome in report.failed:
        print(f"failed: {outcome.file}: {escaped(outcome.case)}: {outcome.problem}")
    print(f"passed {report.passed}, failed {len(report.failed)}")
    rules = [f"{rule.source}: {', '.join(rule.fields)}" for rule in report.untouched_rules]
    cells = [f"{role}: {action} on {type_name}" for role, type_name, action in report.untouched_cells]
    for what, total, untouched in (("rules", report.rules, rules), ("cells", report.cells, cells)):
        print(f"{what}: {total - len(untouched)} of {total} touched by a test")
        for line in untouched[:_MAX_LISTED]:
            print(f"  untouched: {line}")
        if len(untouched) > _MAX_LISTED:
            print(f"  and {len(untouched) - _MAX_LISTED} more; --json lists all")


def _write_junit(report: Report, file: Path) -> None:
    suites = ElementTree.Element("testsuites", name="authz policy test")
    for name in dict.fromkeys(outcome.file for outcome in report.outcomes):
        outcomes = [outcome for outcome in report.outcomes if outcome.file == name]
        failures = sum(bool(outcome.problem) for outcome in outcomes)
        suite = ElementTree.SubElement(
            suites, "testsuite", name=name, tests=str(len(outcomes)), failures=str(failures)
        )
        for outcome in outcomes:
            # XML has no form for most control characters.
            case = ElementTree.SubElement(suite, "testcase", classname=name, name=escaped(outcome.case))
            if outcome.problem:
                ElementTree.SubElement(case, "failure", message=outcome.problem)
    ElementTree.ElementTree(suites).write(file, encoding="utf-8", xml_declaration=True)
