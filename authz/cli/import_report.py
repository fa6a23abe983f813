"""What the imports print: failed rows and notes with file and line, and a summary."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import typer

from authz.client.questions import NOT_REPLICATED, ImportOutcome
from authz.domain.origin import MAX_REASON_LENGTH
from authz.importers.report import RowFault, Sourced, in_order, printable
from authz.importers.source_file import name_of

FAULTS_EXIT_CODE = 1
_MAX_LISTED = 50


def import_reason(path: Path) -> str:
    """The reason that the change log gives for an import."""
    return printable(f"import of {name_of(path)}")[:MAX_REASON_LENGTH]


def print_capped(label: str, lines: Iterable[str]) -> None:
    """Print the first lines on standard error, and how many more there are."""
    rest = iter(lines)
    for line in islice(rest, _MAX_LISTED):
        print(f"{label}: {line}", file=sys.stderr)
    more = sum(1 for _ in rest)
    if more:
        print(f"{label}: and {more} more", file=sys.stderr)


def finish_import(outcome: ImportOutcome, sourced: Sequence[Sourced], faults: Sequence[RowFault]) -> None:
    """Print what has failed and the summary. Exits with 1 if anything has failed."""
    found = [*faults]
    for fault in outcome.faults:
        source = sourced[fault.position]
        found.append(RowFault(source.file, source.line, fault.message))
    print_capped("failed", map(str, in_order(found)))
    failed = outcome.failed + len(faults)
    if not outcome.replicated:
        print(f"warning: {NOT_REPLICATED}", file=sys.stderr)
    print(f"written {outcome.written}, unchanged {outcome.unchanged}, failed {failed}")
    if failed:
        raise typer.Exit(FAULTS_EXIT_CODE)
