"""Processes of `authz serve` that are killed and started again, on the same port and the same replica."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.forkserver import Process, without_settings
from tests.serving import find_free_port
from tests.waiting import until

AUTHORIZATION = "authz.v1.AuthorizationService"
DIRECTORY = "authz.v1.DirectoryService"
PATIENCE_S = 60

CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 20),
    # How long gRPC waits for a connection.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 100),
    # Each channel a connection of its own, so that workers that share a port share the load.
    ("grpc.use_local_subchannel_pool", 1),
)


class Node:
    """One `authz serve`, or the supervisor of several, with an address and a replica that stay."""

    def __init__(self, name: str, url: str, folder: Path, **variables: str) -> None:
        self.name = name
        self.address = f"127.0.0.1:{find_free_port()}"
        self.replica = folder / f"{name}.replica"
        self.log = folder / f"{name}.log"
        self._environ = without_settings() | {
            "AUTHZ_ADDRESS": self.address,
            "AUTHZ_DATABASE_URL": url,
            "AUTHZ_REPLICA_DIR": str(self.replica),
            "AUTHZ_LOG_LEVEL": "warning",
            "AUTHZ_STOP_GRACE_S": "1",
            # Less than clients wait, so that some writes are acknowledged before the replica has them.
            "AUTHZ_REPLICATION_TIMEOUT_S": "0.5",
            **variables,
        }
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        """The process that was started last."""
        assert self._process is not None
        return self._process

    def launch(self) -> None:
        """Start, without waiting for anything."""
        with self.log.open("ab") as log:
            self._process = Process("serve", environ=self._environ, stderr=log.fileno())

    def start(self) -> None:
        """Start; return once checks are answered."""
        self.launch()
        self.await_health(AUTHORIZATION, health_pb2.HealthCheckResponse.SERVING)

    def kill(self) -> None:
        """SIGKILL, of all its processes: what a machine that loses its power does to them."""
        family = self.children()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(family, PATIENCE_S)

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def children(self) -> list[psutil.Process]:
        """All that run because of it."""
        with suppress(psutil.NoSuchProcess):
            # Once it has ended, its number may be that of another program.
            if self._process is not None and self._process.poll() is None:
                return psutil.Process(self._process.pid).children(recursive=True)
        return []

    def workers(self) -> list[psutil.Process]:
        """Its serving processes and its follower: what the process that forks them has forked."""
        with suppress(psutil.NoSuchProcess):
            return [
                child
                for forker in psutil.Process(self.process.pid).children()
                for child in forker.children()
                if child.status() != psutil.STATUS_ZOMBIE
            ]
        return []

    def health(self, service: str) -> int | None:
        """What it says of a service; None when nobody answers."""
        with grpc.insecure_channel(self.address, CHANNEL_OPTIONS) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                status: int = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status
            except grpc.RpcError:
                return None
            return status

    def await_health(self, service: str, status: int) -> None:
        """Wait until it says so."""

        def says() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.health(service) == status

        name = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
        until(says, f"{self.name} does not become {name} for {service}: see {self.log}")


@contextmanager
def running(*nodes: Node) -> Iterator[None]:
    """All of them serve inside the block; afterwards none is left."""
    try:
        for node in nodes:
            node.launch()
        for node in nodes:
            node.await_health(AUTHORIZATION, health_pb2.HealthCheckResponse.SERVING)
        yield
    finally:
        for node in nodes:
            node.kill()
