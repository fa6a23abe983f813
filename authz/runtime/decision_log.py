"""Opens the decision log that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from authz.audit.decision_log import DecisionLog, DecisionSink
from authz.audit.lines import LinesFile, StandardOutput
from authz.audit.table import TableSink
from authz.domain.decision_log import DecisionEntry, DecisionTable
from authz.runtime.settings import FILE_PREFIX, OTLP, STDOUT, TABLE, Settings, invalid_setting


class SynchronousDecisionLog(DecisionLog):
    """Calls a function with every question, before its answer is sent."""

    keeps_questions = True

    def __init__(self, on_question: Callable[[DecisionEntry], None]) -> None:
        super().__init__((), allows=1)
        self._on_question = on_question

    def put(self, entry: DecisionEntry) -> None:
        self._on_question(entry)


def open_decision_log(settings: Settings, table: DecisionTable) -> DecisionLog | None:
    """The decision log with the configured sinks; None without sinks.

    Raises `InvalidArgumentError` for `otlp` without OpenTelemetry.
    """
    sinks = [_sink(settings, table, name) for name in settings.decision_sinks]
    return DecisionLog(sinks, allows=settings.decision_log_allows) if sinks else None


def _sink(settings: Settings, table: DecisionTable, name: str) -> DecisionSink:
    if name == STDOUT:
        return StandardOutput()
    if name == TABLE:
        return TableSink(table)
    if name == OTLP:
        return _otlp_sink()
    path = Path(name.removeprefix(FILE_PREFIX))
    return LinesFile(path, max_bytes=settings.decision_log_max_bytes, kept=settings.decision_log_files)


def _otlp_sink() -> DecisionSink:
    try:
        from authz.audit.otlp import OtlpSink
        from authz.runtime.otel import VERSION, open_exporter, open_resource
    except ImportError:
        raise invalid_setting(
            "AUTHZ_DECISION_LOG",
            "AUTHZ_DECISION_LOG names `otlp`, and its release of OpenTelemetry is not installed; run"
            " `pip install 'qalamchat-authz[otel]'`",
        ) from None
    exporter = open_exporter("logs", OTLP, variable="AUTHZ_DECISION_LOG")
    return OtlpSink(exporter, open_resource(), VERSION)
