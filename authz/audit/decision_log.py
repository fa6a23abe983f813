"""Hands the entries of the decision log to its sinks, so that none of them holds up an answer."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Protocol

import structlog

from authz.domain.decision_log import DecisionEntry
from authz.telemetry.background import BackgroundWriter
from authz.telemetry.metrics import count_logged

MAX_WAITING = 100_000
"""Entries that wait for one sink: about 60 MB. Those beyond are lost, and counted."""
_RETRY_S = 1.0
_FLUSH_TIMEOUT_S = 2.0
_ABORT_TIMEOUT_S = 0.5

log = structlog.get_logger()


class DecisionSink(Protocol):
    """Where entries go."""

    name: str
    """For logs and metrics."""
    gather_s: float
    """How long entries are gathered before they are written together."""

    def write(self, entries: Sequence[DecisionEntry]) -> None:
        """Write all of them. Raises if it could not; the same entries are then tried again.

        May wait. Called from one thread."""


class DecisionLog:
    """Writes entries to every sink. `allows` is the share of allowed decisions that are kept for no other
    reason."""

    keeps_questions = False
    """Whether a question is kept, too, that decided nothing, such as a list that is empty."""

    def __init__(self, sinks: Sequence[DecisionSink], *, allows: float) -> None:
        self._deliveries = [_Delivery(sink) for sink in sinks]
        self._allows = allows

    def samples(self) -> bool:
        """Whether to keep this one of the allowed decisions that need not be kept."""
        return self._allows >= 1 or random.random() < self._allows  # noqa: S311  a sample, not a secret

    def put(self, entry: DecisionEntry) -> None:
        """Have an entry written to every sink. Neither waits nor raises."""
        for delivery in self._deliveries:
            delivery.writer.put(entry)

    def close(self) -> None:
        """Write what waits, for two seconds at most for each sink; what is left is lost, and counted."""
        for delivery in self._deliveries:
            delivery.close()


class _Delivery:
    """One sink, with a queue and a thread of its own. While the sink fails, entries wait."""

    def __init__(self, sink: DecisionSink) -> None:
        self._sink = sink
        self._closing = threading.Event()
        self._is_failing = False
        self._told = 0
        self.writer = BackgroundWriter[DecisionEntry](
            f"decisions-{sink.name}",
            self._write,
            max_items=MAX_WAITING,
            gather_s=sink.gather_s,
            on_loss=lambda lost: count_logged(sink.name, lost=lost),
        )
        count_logged(sink.name)

    def close(self) -> None:
        """Write what waits, or give it up."""
        if not self.writer.flush(_FLUSH_TIMEOUT_S):
            self._closing.set()
            if not self.writer.flush(_ABORT_TIMEOUT_S):
                log.warning("decisions lost at the end", sink=self._sink.name, entries=self.writer.waiting)
        self._tell_loss()

    def _write(self, entries: list[DecisionEntry]) -> None:
        while True:
            try:
                self._sink.write(entries)
                break
            except Exception as error:
                if not self._is_failing:
                    self._is_failing = True
                    log.warning(
                        "decisions are not written; they wait, and are lost when too many do",
                        sink=self._sink.name,
                        error=str(error),
                    )
                if self._closing.wait(_RETRY_S):
                    raise
        if self._is_failing:
            self._is_failing = False
            log.info("decisions are written again", sink=self._sink.name)
        count_logged(self._sink.name, written=len(entries))
        self._tell_loss()

    def _tell_loss(self) -> None:
        lost = self.writer.lost
        if lost != self._told:
            log.warning("decisions lost", sink=self._sink.name, entries=lost - self._told)
            self._told = lost
