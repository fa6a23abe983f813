"""The sink of the decision log that stores entries in the database."""

from __future__ import annotations

from collections.abc import Sequence

from authz.audit.decision_log import DecisionSink
from authz.domain.decision_log import DecisionEntry, DecisionTable


class TableSink(DecisionSink):
    """A table, which `AuditService.ReadDecisions` reads."""

    name = "table"
    gather_s = 0.5
    """Each batch is a transaction, which waits for the disk and, on SQLite, blocks other writes."""

    def __init__(self, table: DecisionTable) -> None:
        self._table = table

    def write(self, entries: Sequence[DecisionEntry]) -> None:
        self._table.append(entries)
