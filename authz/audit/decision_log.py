"""Passes the entries of the decision log to its sinks without delaying answers."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from authz.domain.decision_log import DecisionEntry
from authz.domain.errors import InvalidArgumentError
from authz.telemetry.background import BackgroundWriter
from authz.telemetry.metrics import LOGGED_DECISIONS

MAX_WAITING = 100_000
"""Maximum entries that wait for one sink, about 80 MB. Further entries are lost and counted."""
_RETRY_S = 1.0
_FLUSH_TIMEOUT_S = 2.0
_ABORT_TIMEOUT_S = 0.5

log = structlog.get_logger()


class DecisionSink(Protocol):
    """A destination of entries."""

    name: str
    """The name of the destination in logs and metrics."""
    gather_s: float
    """How long to gather entries for one write."""

    def write(self, entries: Sequence[DecisionEntry]) -> None:
        """Write all entries, or none. May wait. Called from one thread.

        Raises `InvalidArgumentError` or `ValueError` if an entry can never be written: the log then drops
        that entry. After any other error the log retries the same entries."""


class DecisionLog:
    """Writes entries to every sink. `sample_rate` is that of allowed decisions that need not be
    logged."""

    keeps_questions = False
    """Whether to log questions without a decision, too, such as an empty list."""

    def __init__(self, sinks: Sequence[DecisionSink], *, sample_rate: float) -> None:
        self._deliveries = [_Delivery(sink) for sink in sinks]
        self._sample_rate = sample_rate
        self.samples_all = sample_rate >= 1
        """Whether the sample includes every allowed decision."""

    def samples(self) -> bool:
        """Whether the sample includes this allowed decision."""
        return self.samples_all or random.random() < self._sample_rate  # noqa: S311  a sample, not a secret

    def put(self, make: Callable[[], DecisionEntry]) -> None:
        """Queue an entry for every sink. Neither waits nor raises. The thread of the sink makes it, so that
        the answer does not wait for that."""
        for delivery in self._deliveries:
            delivery.writer.put(make)

    def close(self) -> None:
        """Write the waiting entries, at most two seconds for each sink; the rest is lost and counted."""
        for delivery in self._deliveries:
            delivery.close()


class _Delivery:
    """One sink, with a queue and a thread of its own. While the sink fails, entries wait."""

    def __init__(self, sink: DecisionSink) -> None:
        self._sink = sink
        self._written, lost = (LOGGED_DECISIONS.labels(sink.name, each) for each in ("written", "lost"))
        self._closing = threading.Event()
        self._is_failing = False
        self._told = 0
        self.writer = BackgroundWriter[Callable[[], DecisionEntry]](
            f"decisions-{sink.name}",
            lambda waiting: self._write([make() for make in waiting]),
            max_items=MAX_WAITING,
            gather_s=sink.gather_s,
            on_loss=lost.inc,
        )

    def close(self) -> None:
        """Write the waiting entries, or discard them after a timeout."""
        if not self.writer.flush(_FLUSH_TIMEOUT_S):
            self._closing.set()
            if not self.writer.flush(_ABORT_TIMEOUT_S):
                self.writer.abandon()
        self._tell_loss()

    def _write(self, entries: list[DecisionEntry]) -> None:
        while True:
            try:
                self._sink.write(entries)
                break
            except (InvalidArgumentError, ValueError) as error:
                self._write_halves(entries, error)
                return
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
        self._written.inc(len(entries))
        self._tell_loss()

    def _write_halves(self, entries: list[DecisionEntry], error: Exception) -> None:
        """Write all entries except those that the sink can never write."""
        if len(entries) == 1:
            self.writer.lose(1)
            log.warning(
                "decision not written; the sink cannot store it",
                sink=self._sink.name,
                decision_id=entries[0].decision_id,
                error=str(error),
            )
            self._tell_loss()
            return
        middle = len(entries) // 2
        self._write(entries[:middle])
        self._write(entries[middle:])

    def _tell_loss(self) -> None:
        lost = self.writer.lost
        if lost != self._told:
            log.warning("decisions lost", sink=self._sink.name, entries=lost - self._told)
            self._told = lost
