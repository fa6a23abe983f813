"""Opens the decision log that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from authz.audit.decision_log import DecisionLog, DecisionSink
from authz.audit.lines import LinesFile, StandardOutput
from authz.audit.table import TableSink
from authz.domain.decision_log import DecisionEntry, DecisionTable
from authz.runtime.settings import DECISIONS_FILE, Settings


class ToldDecisionLog(DecisionLog):
    """Reports every question synchronously, before its answer is sent."""

    keeps_questions = True

    def __init__(self, tell: Callable[[DecisionEntry], None]) -> None:
        super().__init__((), allows=1)
        self._tell = tell

    def put(self, entry: DecisionEntry) -> None:
        """See above."""
        self._tell(entry)


def open_decision_log(settings: Settings, table: DecisionTable) -> DecisionLog | None:
    """The decision log with the configured sinks; None without sinks."""
    sinks = [_sink(settings, table, name) for name in settings.decision_sinks]
    return DecisionLog(sinks, allows=settings.decision_log_allows) if sinks else None


def _sink(settings: Settings, table: DecisionTable, name: str) -> DecisionSink:
    if name == StandardOutput.name:
        return StandardOutput()
    if name == TableSink.name:
        return TableSink(table)
    path = Path(name.removeprefix(DECISIONS_FILE))
    return LinesFile(path, max_bytes=settings.decision_log_max_bytes, kept=settings.decision_log_files)
