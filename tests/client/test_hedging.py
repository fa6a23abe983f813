"""A check that is sent again when its answer is late: asked of a real server that answers some calls late."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from authz.client import CallError, InvalidArgumentError
from authz.domain.entities import Course
from authz.domain.mutations import Mutation, Operation
from authz.v1 import authorization_pb2 as apb
from authz.v1 import authorization_pb2_grpc, directory_pb2, directory_pb2_grpc
from tests.client.conftest import Connect

AFTER_S = 0.02
WAIT_S = 30


class LateServicer(
    authorization_pb2_grpc.AuthorizationServiceServicer, directory_pb2_grpc.DirectoryServiceServicer
):
    """Holds the calls whose numbers, from 0, are in `late`, until `released`; fails those in `failing`."""

    def __init__(self) -> None:
        self.late: set[int] = set()
        self.failing: set[int] = set()
        self.released, self.cancelled = threading.Event(), threading.Event()
        self.peers: list[str] = []
        self.writes = 0
        self._mutex = threading.Lock()

    def _arrive(self, context: Any) -> int:
        with self._mutex:
            self.peers.append(context.peer())
            number = len(self.peers) - 1
        if number in self.failing:
            context.abort(grpc.StatusCode.INTERNAL, "failed")
        if number in self.late:
            context.add_callback(lambda: None if self.released.is_set() else self.cancelled.set())
            self.released.wait(WAIT_S)
        return number

    def Check(self, request: apb.CheckRequest, context: Any) -> apb.CheckResponse:  # noqa: N802  named by the contract
        """Allow, and tell the number of the call as the version of the policy."""
        del request
        return apb.CheckResponse(allowed=True, policy_version=str(self._arrive(context)))

    def Write(self, request: Any, context: Any) -> directory_pb2.WriteResponse:  # noqa: N802  named by the contract
        """Answer after several times the delay."""
        del request, context
        self.writes += 1
        self.released.wait(5 * AFTER_S)
        return directory_pb2.WriteResponse(replicated=True)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[str, LateServicer]]:
    """One server for all tests."""
    servicer: Any = LateServicer()  # type: ignore[abstract]  # only Check and Write are called
    server = grpc.server(ThreadPoolExecutor(16))
    authorization_pb2_grpc.add_AuthorizationServiceServicer_to_server(servicer, server)
    directory_pb2_grpc.add_DirectoryServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", servicer
    servicer.released.set()
    server.stop(None).wait()


@pytest.fixture
def late(servers: tuple[str, LateServicer]) -> Iterator[tuple[str, LateServicer]]:
    """The server, as if it was new."""
    address, servicer = servers
    servicer.peers, servicer.writes, servicer.late, servicer.failing = [], 0, set(), set()
    servicer.released, servicer.cancelled = threading.Event(), threading.Event()
    yield address, servicer
    servicer.released.set()


def test_a_late_check_is_answered_over_another_connection_and_given_up_on_the_first(
    connect: Connect, late: tuple[str, LateServicer]
) -> None:
    address, servicer = late
    servicer.late = {0}
    with connect(address, hedge_after_s=AFTER_S, timeout_s=WAIT_S) as client:
        answer = client.check("user:maya", "read", "material:m-1")
        assert (answer.allowed, answer.policy_version) == (True, "1")
        assert servicer.cancelled.wait(WAIT_S)
    assert len(set(servicer.peers)) == 2


def test_the_error_of_one_call_does_not_hide_the_answer_of_the_other(
    connect: Connect, late: tuple[str, LateServicer]
) -> None:
    address, servicer = late
    servicer.late, servicer.failing = {0}, {1}
    with connect(address, hedge_after_s=AFTER_S, timeout_s=WAIT_S) as client:
        release = threading.Thread(target=_release_after_two, args=(servicer,))
        release.start()
        assert client.check("user:maya", "read", "material:m-1").policy_version == "0"
        release.join()


def _release_after_two(servicer: LateServicer) -> None:
    while len(servicer.peers) < 2:
        threading.Event().wait(AFTER_S / 4)
    servicer.released.set()


def test_an_error_is_raised_when_no_call_is_left(connect: Connect, late: tuple[str, LateServicer]) -> None:
    address, servicer = late
    servicer.failing = {0}
    with connect(address, hedge_after_s=WAIT_S, timeout_s=WAIT_S) as client:
        with pytest.raises(CallError) as raised:
            client.check("user:maya", "read", "material:m-1")
        assert raised.value.code is grpc.StatusCode.INTERNAL
    assert len(servicer.peers) == 1


def test_of_many_late_checks_few_are_sent_again_and_a_write_never_is(
    connect: Connect, late: tuple[str, LateServicer]
) -> None:
    address, servicer = late
    servicer.late = set(range(0, 30, 2))
    with connect(address, hedge_after_s=AFTER_S, timeout_s=WAIT_S) as client:
        other = client.with_options(timeout_s=2 * WAIT_S)
        for number in range(11):
            assert (client, other)[number % 2].check("user:maya", "read", "material:m-1").allowed
        assert len(servicer.peers) == 22, "ten, and one for the first ten"
        with pytest.raises(CallError) as raised:
            client.with_options(timeout_s=3 * AFTER_S).check("user:maya", "read", "material:m-1")
        assert raised.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        client.write([Mutation(Operation.CREATE, Course(id="algebra"))])
        assert servicer.writes == 1


@pytest.mark.parametrize("hedge_after_s", [-1.0, float("nan"), float("inf")])
def test_a_delay_that_is_no_time_is_refused(connect: Connect, hedge_after_s: float) -> None:
    with pytest.raises(InvalidArgumentError, match="hedge_after_s is"):
        connect("127.0.0.1:1", hedge_after_s=hedge_after_s)
