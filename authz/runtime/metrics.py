"""What the replica is like, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from authz.domain.errors import ErrorReason, InvalidArgumentError, UnavailableError
from authz.domain.ports import View


class ReplicaCollector(Collector):
    """Reads the gauges when they are asked for: nothing is counted on the way of a check."""

    def __init__(self, view: View, workers: Callable[[], int]) -> None:
        self._view = view
        self._workers = workers

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Staleness in seconds (infinite while nothing is known), revision, and serving processes."""
        yield GaugeMetricFamily(
            "authz_replica_staleness_seconds",
            "Since when the replica is not known to hold the last committed revision.",
            value=self._view.staleness_s(),
        )
        try:
            revision = self._view.revision()
        except UnavailableError:
            revision = -1
        yield GaugeMetricFamily(
            "authz_replica_revision", "The revision that the replica holds; -1 for none.", value=revision
        )
        yield GaugeMetricFamily("authz_workers", "Processes that serve.", value=self._workers())


@contextmanager
def exporting(address: str, view: View, workers: Callable[[], int]) -> Iterator[None]:
    """Serve `/metrics` at `host:port` while the block lasts; nothing for an empty address."""
    if not address:
        yield
        return
    host, _, port = address.rpartition(":")
    registry = CollectorRegistry()
    registry.register(ReplicaCollector(view, workers))
    try:
        server, thread = start_http_server(int(port), addr=host.strip("[]"), registry=registry)
    except (OSError, ValueError):
        raise InvalidArgumentError(
            ErrorReason.MALFORMED_FIELD,
            f"cannot export metrics at `{address}`: it is in use or not `host:port`;"
            " set AUTHZ_METRICS_ADDRESS",
            field="AUTHZ_METRICS_ADDRESS",
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
