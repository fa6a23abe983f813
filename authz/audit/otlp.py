"""The sink of the decision log that sends log records to an OpenTelemetry collector.

OpenTelemetry for Python keeps its API for logs in modules that begin with an underscore: it is the one that
its own instrumentation uses, and may change between minor releases. Only this module imports it.
Source: https://opentelemetry.io/docs/specs/otel/logs/data-model/
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from authz.audit.decision_log import DecisionSink
from authz.domain.decision_log import DecisionEntry

EVENT_NAME = "authz.decision"
_NS_PER_US = 1000


class OtlpSink(DecisionSink):
    """An exporter of OpenTelemetry, by OTLP unless the operator chose another."""

    name = "otlp"
    gather_s = 0.5
    """Each batch is a request."""

    def __init__(self, exporter: LogRecordExporter, resource: Resource, version: str) -> None:
        self._exporter = exporter
        self._resource = resource
        self._scope = InstrumentationScope("authz", version)

    def write(self, entries: Sequence[DecisionEntry]) -> None:
        """The exporter has retried for its own timeout before this raises."""
        if self._exporter.export([self._record(entry) for entry in entries]) is LogRecordExportResult.FAILURE:
            raise ConnectionError("the collector did not take the records; the log says why")

    def _record(self, entry: DecisionEntry) -> ReadableLogRecord:
        """Each field that is not empty is an attribute: `subject` is `authz.subject`."""
        fields = msgspec.structs.asdict(entry)
        at_ns = fields.pop("at") * _NS_PER_US
        record = LogRecord(
            timestamp=at_ns,
            observed_timestamp=at_ns,
            severity_number=SeverityNumber.INFO,
            severity_text="INFO",
            event_name=EVENT_NAME,
            attributes={f"authz.{name}": value for name, value in fields.items() if value != ""},
        )
        return ReadableLogRecord(record, self._resource, self._scope)
