"""Exports the state of the replica and of the processes to Prometheus, and what they have counted."""

from __future__ import annotations

import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from authz.domain.errors import UnavailableError
from authz.domain.instants import US_PER_S
from authz.domain.ports import View
from authz.engine.clock import DecisionClock
from authz.runtime.folder_lock import lock_temporary_folder
from authz.runtime.lifecycle import in_background
from authz.runtime.liveness import Heartbeat, beat_forever
from authz.runtime.probes import Probes, serving_probes
from authz.telemetry.metrics import REGISTRY

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client finds the folder of the counts."""
_MAX_ATTEMPTS = 100
_RETRY_S = 0.01


@dataclass(frozen=True, eq=False)
class ReplicaCollector(Collector):
    """Reads the gauges when they are scraped, so that a check counts nothing."""

    view: View
    clock: DecisionClock
    workers: Callable[[], int] | None = None
    restarts: Mapping[tuple[str, str], int] | None = None

    def collect(self) -> Iterator[Metric]:
        """Staleness in seconds (infinite while it is not known), revision, whether an acknowledged write is
        missing, how far the clock is behind; and serving processes and restarts if known."""
        yield from self._replica()
        yield GaugeMetricFamily(
            "authz_clock_behind_seconds",
            "By how much the machine's clock is behind the newest commit, or was set back.",
            value=self.clock.behind_us / US_PER_S,
        )
        yield CounterMetricFamily(
            "authz_clock_behind",
            "How often the clock was found behind by more than a second; it is read twice a second.",
            value=self.clock.times_behind,
        )
        yield from self._processes()

    def _replica(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "authz_replica_staleness_seconds",
            "Time since the replica was known to hold the last committed revision.",
            value=self.view.staleness_s(),
        )
        try:
            revision = self.view.revision()
        except UnavailableError:
            revision = -1
        yield GaugeMetricFamily(
            "authz_replica_revision", "The revision that the replica holds; -1 for none.", value=revision
        )
        yield GaugeMetricFamily(
            "authz_replica_behind",
            "1 while checks are refused because a write that this machine acknowledged is missing.",
            value=self.view.is_behind(),
        )
        yield GaugeMetricFamily(
            "authz_policy_version",
            "The number of the platform's policy that this machine decides by; 0 for none.",
            value=self.view.policy_number,
        )

    def _processes(self) -> Iterator[Metric]:
        if self.workers is not None:
            yield GaugeMetricFamily("authz_workers", "Processes that serve.", value=self.workers())
        if self.restarts is not None:
            restarts = CounterMetricFamily(
                "authz_process_restarts",
                "Processes that the supervisor has started again, by cause: hung or ended.",
                labels=("process", "cause"),
            )
            for labels, count in self.restarts.items():
                restarts.add_metric(labels, count)
            yield restarts


class MultiprocessCounts(MultiProcessCollector):
    """The sums of what the processes of the machine count.

    Reads again when one of them has just made its file, which is empty at first.
    """

    def __init__(self, registry: CollectorRegistry, folder: str) -> None:
        super().__init__(registry, path=folder)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        for _ in range(_MAX_ATTEMPTS):
            with suppress(struct.error):
                return self._collect()
            time.sleep(_RETRY_S)
        return self._collect()

    def _collect(self) -> Iterable[Metric]:
        found: Iterable[Metric] = super().collect()  # type: ignore[no-untyped-call]  # of prometheus_client
        return found


@contextmanager
def exporting(
    address: str,
    collector: ReplicaCollector,
    *,
    not_ready: Callable[[], str],
    counts_folder: str = "",
) -> Iterator[None]:
    """Serve `/metrics`, `/livez` and `/readyz` at `host:port` while the block lasts: see `serving_probes`.

    In a task of the event loop, because `/livez` says whether the loop runs. The processes of the machine
    count in `counts_folder`; empty if only this one does.
    """
    heartbeat, registry = Heartbeat(), CollectorRegistry()
    registry.register(collector)
    if counts_folder:
        MultiprocessCounts(registry, counts_folder)
    else:
        registry.register(REGISTRY)
    probes = Probes(registry, heartbeat.cause, not_ready)
    with in_background(beat_forever(heartbeat.beat)), serving_probes(address, probes):
        yield


@contextmanager
def multiprocess_counts(*, wanted: bool) -> Iterator[str]:
    """A folder in which the processes that are started in the block count together; empty if not wanted."""
    if not wanted:
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="authz-metrics-", ignore_cleanup_errors=True) as folder:
        lock_temporary_folder(Path(folder))
        os.environ[_FOLDER] = folder
        try:
            yield folder
        finally:
            del os.environ[_FOLDER]


def restore_counts_folder() -> None:
    """Make the folder of `multiprocess_counts` again if somebody deleted it: no process starts without it."""
    if folder := os.environ.get(_FOLDER):
        Path(folder).mkdir(mode=0o700, exist_ok=True)
