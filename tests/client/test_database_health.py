"""A call that is not answered in time says so if the database of the server does not answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from authz.client import CallError
from authz.domain.entities import Course
from authz.domain.mutations import Mutation, Operation
from authz.v1 import directory_pb2
from tests.client.conftest import Connect
from tests.client.test_failures import add

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
CREATES = [Mutation(Operation.CREATE, Course(id="alg"))]


class Hanging:
    """Answers no write while `hangs`, and its health with `status`; not at all if this is None."""

    def __init__(self) -> None:
        self.hangs = True
        self.status: int | None = None
        self.services: list[str] = []
        self.released = threading.Event()

    def write(self, request: Any, context: Any) -> directory_pb2.WriteResponse:
        """An empty answer, sooner or later."""
        if self.hangs:
            self.released.wait(60)
        return directory_pb2.WriteResponse()

    def check(self, request: Any, context: Any) -> health_pb2.HealthCheckResponse:
        """The health of a service."""
        self.services.append(request.service)
        if self.status is None:
            self.released.wait(60)
        return health_pb2.HealthCheckResponse(status=self.status)


@pytest.fixture(params=[True, False], ids=["with health", "without health"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[Hanging, str]]:
    """A server, with or without a health service, and its address."""
    servicer, started = Hanging(), grpc.server(ThreadPoolExecutor(4))
    add(started, "authz.v1.DirectoryService", "Write", servicer.write, directory_pb2.WriteRequest)
    if request.param:
        add(started, "grpc.health.v1.Health", "Check", servicer.check, health_pb2.HealthCheckRequest)
    port = started.add_insecure_port("127.0.0.1:0")
    started.start()
    yield servicer, f"127.0.0.1:{port}"
    servicer.released.set()
    started.stop(0).wait()


with_health = pytest.mark.parametrize("server", [True], indirect=True)


@with_health
def test_a_missed_deadline_names_the_database_that_does_not_answer(
    server: tuple[Hanging, str], connect: Connect
) -> None:
    servicer, address = server
    servicer.status = NOT_SERVING
    with connect(address, timeout_s=30) as client:
        for timeout_s in (1, 0.05, 0.05, 0.05, 0.05):
            with pytest.raises(
                CallError, match="the database of the server does not answer; see "
            ) as failure:
                client.with_options(timeout_s=timeout_s).write(CREATES)
            missed = (failure.value.code, failure.value.reason)
            assert missed == (grpc.StatusCode.DEADLINE_EXCEEDED, "STORE_UNAVAILABLE")
    assert set(servicer.services) == {"authz.v1.DirectoryService"}
    assert len(servicer.services) < 5, "the client asks at most once a second"


@pytest.mark.parametrize("status", [SERVING, None])
def test_a_missed_deadline_says_nothing_else_if_the_server_does_not_know_why(
    server: tuple[Hanging, str], connect: Connect, status: int | None
) -> None:
    servicer, address = server
    servicer.status = status
    with connect(address, timeout_s=0.5) as client, pytest.raises(CallError) as failure:
        client.write(CREATES)
    assert (failure.value.code, failure.value.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "")


@with_health
def test_a_call_that_is_answered_asks_for_no_health(server: tuple[Hanging, str], connect: Connect) -> None:
    servicer, address = server
    servicer.hangs = False
    with connect(address) as client:
        client.write(CREATES)
    assert servicer.services == []
