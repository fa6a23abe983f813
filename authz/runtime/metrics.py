"""Exports the state of the replica and of the processes to Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from authz.domain.errors import UnavailableError
from authz.domain.instants import US_PER_S
from authz.domain.ports import View
from authz.engine.clock import DecisionClock
from authz.runtime.settings import invalid_setting


class ReplicaCollector(Collector):
    """Reads the gauges when they are scraped, so that a check counts nothing."""

    def __init__(
        self,
        view: View,
        clock: DecisionClock,
        lost_lines: Callable[[], int],
        workers: Callable[[], int] | None = None,
        restarts: Mapping[tuple[str, str], int] | None = None,
    ) -> None:
        self._view = view
        self._clock = clock
        self._lost_lines = lost_lines
        self._workers = workers
        self._restarts = restarts

    def collect(self) -> Iterator[Metric]:
        """Staleness in seconds (infinite while it is not known), revision, whether an acknowledged write is
        missing, how far the clock is behind, lines of the log that were lost; and serving processes and
        restarts if known."""
        yield GaugeMetricFamily(
            "authz_replica_staleness_seconds",
            "Time since the replica was known to hold the last committed revision.",
            value=self._view.staleness_s(),
        )
        try:
            revision = self._view.revision()
        except UnavailableError:
            revision = -1
        yield GaugeMetricFamily(
            "authz_replica_revision", "The revision that the replica holds; -1 for none.", value=revision
        )
        yield GaugeMetricFamily(
            "authz_replica_behind",
            "1 while checks are refused because a write that this machine acknowledged is missing.",
            value=self._view.is_behind(),
        )
        yield GaugeMetricFamily(
            "authz_clock_behind_seconds",
            "By how much the machine's clock is behind the newest commit, or was set back.",
            value=self._clock.behind_us / US_PER_S,
        )
        yield CounterMetricFamily(
            "authz_clock_behind",
            "How often the clock was found behind by more than a second; it is read twice a second.",
            value=self._clock.times_behind,
        )
        yield CounterMetricFamily(
            "authz_log_lines_lost",
            "Lines of the log that were not written, because standard error was not read.",
            value=self._lost_lines(),
        )
        yield from self._processes()

    def _processes(self) -> Iterator[Metric]:
        if self._workers is not None:
            yield GaugeMetricFamily("authz_workers", "Processes that serve.", value=self._workers())
        if self._restarts is not None:
            restarts = CounterMetricFamily(
                "authz_process_restarts",
                "Processes that the supervisor has started again, by cause: hung or ended.",
                labels=("process", "cause"),
            )
            for labels, count in self._restarts.items():
                restarts.add_metric(labels, count)
            yield restarts


@contextmanager
def exporting(
    address: str,
    view: View,
    *,
    clock: DecisionClock,
    lost_lines: Callable[[], int],
    workers: Callable[[], int] | None = None,
    restarts: Mapping[tuple[str, str], int] | None = None,
) -> Iterator[None]:
    """Serve `/metrics` at `host:port` while the block lasts; does nothing for an empty address.

    Raises `InvalidArgumentError` for an address that cannot be used.
    """
    if not address:
        yield
        return
    host, _, port = address.rpartition(":")
    registry = CollectorRegistry()
    registry.register(ReplicaCollector(view, clock, lost_lines, workers, restarts))
    try:
        server, thread = start_http_server(int(port), addr=host.strip("[]"), registry=registry)
    except (OSError, ValueError):
        raise invalid_setting(
            "AUTHZ_METRICS_ADDRESS",
            f"cannot export metrics at `{address}`: it is in use or not `host:port`;"
            " set AUTHZ_METRICS_ADDRESS",
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
