"""What the client makes of a service that fails: an error, never an answer."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from authz.client import CallError, Client, check_request
from authz.client.connection import Connection
from authz.domain.entities import Course
from authz.domain.errors import (
    AuthzError,
    ErrorReason,
    OverloadedError,
    RemovalPendingError,
    UnavailableError,
)
from authz.domain.mutations import Mutation, Operation
from authz.v1 import audit_pb2, authorization_pb2, directory_pb2, policy_pb2, privacy_pb2
from authz.v1 import authorization_pb2 as pb
from authz.wire.errors import status_of
from tests.client.conftest import Connect
from tests.faults.http2 import END_HEADERS, END_STREAM, HEADERS, SETTINGS, frame, literal

QUESTION = ("user:maya", "read", "notebook:nb-7")
ALLOWED = pb.CheckResponse(allowed=True, reason=pb.REASON_ROLE_GRANT)


class Failing:
    """Fails `times` times with `error`, then answers; its batches have one answer."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.calls = 0
        self.held = threading.Event()
        self.held.set()
        self.error: AuthzError = UnavailableError(ErrorReason.STORE_UNAVAILABLE, "away")

    def check(self, request: Any, context: Any) -> pb.CheckResponse:
        """Allow, once it is there and not held."""
        self.held.wait()
        self._fail(context)
        return ALLOWED

    def batch_check(self, request: Any, context: Any) -> pb.BatchCheckResponse:
        """One answer, however many questions."""
        return pb.BatchCheckResponse(results=[pb.BatchCheckResult(response=ALLOWED)])

    def write(self, request: Any, context: Any) -> directory_pb2.WriteResponse:
        """Accept, once it is there."""
        self._fail(context)
        return directory_pb2.WriteResponse()

    def _fail(self, context: Any) -> None:
        self.calls += 1
        if self.calls <= self.times:
            status = status_of(self.error)
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            (code,) = (code for code in grpc.StatusCode if code.value[0] == status.code)
            context.abort(code, status.message)


def add(server: grpc.Server, service: str, method: str, answer: Callable[..., Any], request: Any) -> None:
    handler: Any = grpc.unary_unary_rpc_method_handler(
        answer, request_deserializer=request.FromString, response_serializer=lambda m: m.SerializeToString()
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])


Serve = Callable[[int], tuple[Failing, Client]]


@pytest.fixture
def serve(connect: Connect) -> Iterator[Serve]:
    """Makes a failing service on a free port, and a client of it."""
    server = grpc.server(ThreadPoolExecutor(2))
    clients: list[Client] = []

    def start(times: int) -> tuple[Failing, Client]:
        servicer = Failing(times)
        authorization, directory = "authz.v1.AuthorizationService", "authz.v1.DirectoryService"
        add(server, authorization, "Check", servicer.check, pb.CheckRequest)
        add(server, authorization, "BatchCheck", servicer.batch_check, pb.BatchCheckRequest)
        add(server, directory, "Write", servicer.write, directory_pb2.WriteRequest)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        clients.append(connect(f"127.0.0.1:{port}"))
        return servicer, clients[0]

    yield start
    for client in clients:
        client.__exit__(None, None, None)
    server.stop(0).wait()


def test_a_check_is_asked_again_while_the_service_is_away(serve: Serve) -> None:
    servicer, client = serve(2)
    assert client.check(*QUESTION).allowed
    assert servicer.calls == 3


def test_a_call_may_have_a_time_limit_of_its_own(serve: Serve) -> None:
    servicer, client = serve(0)
    servicer.held.clear()
    with pytest.raises(CallError) as failure:
        client.with_options(timeout_s=0.05).check(*QUESTION)
    assert failure.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    servicer.held.set()
    assert client.check(*QUESTION).allowed


def test_a_check_gives_up_with_an_error(serve: Serve) -> None:
    _, client = serve(100)
    with pytest.raises(CallError, match="away") as failure:
        client.check(*QUESTION)
    assert failure.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_write_waits_for_the_removal_of_what_has_its_key(serve: Serve) -> None:
    servicer, client = serve(2)
    servicer.error = RemovalPendingError("course:alg is still being removed", retry_after_s=0.1)
    client.write([Mutation(Operation.TOUCH, Course(id="alg"))])
    assert servicer.calls == 3


def test_a_removal_that_takes_longer_than_the_deadline_is_an_error(serve: Serve) -> None:
    servicer, client = serve(100)
    servicer.error = RemovalPendingError("course:alg is still being removed", retry_after_s=0.9)
    with pytest.raises(CallError, match="still being removed") as failure:
        client.with_options(timeout_s=1.6).write([Mutation(Operation.TOUCH, Course(id="alg"))])
    assert failure.value.reason == "BEING_REMOVED"
    assert servicer.calls == 2


def beyond(retry_after_s: float) -> OverloadedError:
    return OverloadedError(
        "too many", reason=ErrorReason.LIMIT_EXCEEDED, retry_after_s=retry_after_s, limit="each.checks"
    )


def test_calls_beyond_a_limit_are_made_again_within_their_time(serve: Serve) -> None:
    servicer, client = serve(1)
    servicer.error = beyond(0.2)
    assert client.check(*QUESTION).allowed
    client.write([Mutation(Operation.TOUCH, Course(id="alg"))])
    assert servicer.calls == 3


def test_a_call_that_may_only_be_made_again_after_its_time_is_an_error_at_once(serve: Serve) -> None:
    servicer, client = serve(100)
    servicer.error = beyond(3600.0)
    with pytest.raises(CallError, match="too many") as failure:
        client.check(*QUESTION)
    assert (failure.value.reason, failure.value.retry_after_s) == ("LIMIT_EXCEEDED", 3600.0)
    assert servicer.calls == 1


def test_a_server_that_is_full_is_not_asked_again_at_once(serve: Serve) -> None:
    servicer, client = serve(1)
    servicer.error = OverloadedError("full", retry_after_s=0.1)
    with pytest.raises(CallError, match="full") as failure:
        client.check(*QUESTION)
    assert (failure.value.retry_after_s, servicer.calls) == (0.1, 1)


def test_a_batch_with_too_few_answers_is_an_error(serve: Serve) -> None:
    _, client = serve(0)
    with pytest.raises(CallError, match="answers and questions differ"):
        client.batch_check([check_request(*QUESTION)] * 2)


def test_nobody_there_is_an_error_also_from_another_thread(connect: Connect) -> None:
    with connect("127.0.0.1:1") as client, ThreadPoolExecutor(1) as pool:
        with pytest.raises(CallError) as failure:
            pool.submit(client.check, *QUESTION).result()
        assert (failure.value.code, failure.value.reason) == (grpc.StatusCode.UNAVAILABLE, "")


STREAMS = "ExportSubject Import PreviewPolicy"
CHANGES = """
ApplyPolicy CreatePolicyDraft DeletePolicyDraft EditPolicyDraft EraseSubject ForgetReplica
ForgetWatcher HoldSubject LiftRestriction PublishPolicyDraft ReleaseErasedSubject ReleaseHold
RemoveMember RenameSubject RestrictSubject RollBackPolicy SchedulePolicyDraft SetRetention
StartPolicyShadow StopPolicyShadow Write
"""


def test_grpc_repeats_only_calls_that_change_nothing() -> None:
    files = (audit_pb2, authorization_pb2, directory_pb2, policy_pb2, privacy_pb2)
    services = [each for file in files for each in file.DESCRIPTOR.services_by_name.values()]
    methods = {method.name for service in services for method in service.methods}
    options = dict(Connection(target="127.0.0.1:1", use_proxy=False).options())
    (config,) = json.loads(str(options["grpc.service_config"]))["methodConfig"]
    repeated = {each["method"] for each in config["name"]}
    assert methods - repeated == {*STREAMS.split(), *CHANGES.split()}, (
        "a call that changes something is in CHANGES; the name of any other begins as in READING"
    )


@pytest.mark.parametrize("status", ["403", "413"])
def test_the_answer_of_a_proxy_is_told_as_such(connect: Connect, status: str) -> None:
    def answer(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client, client.makefile("rb") as received:
            received.read(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
            client.sendall(frame(SETTINGS, 0, 0))
            kind = None
            while kind != HEADERS:
                head = received.read(9)
                kind = head[3]
                received.read(int.from_bytes(head[:3]))
            head_of_answer = literal(b":status", status.encode())
            client.sendall(frame(HEADERS, END_STREAM | END_HEADERS, 1, head_of_answer))
            received.read()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        with (
            connect(f"127.0.0.1:{listener.getsockname()[1]}") as client,
            pytest.raises(CallError, match=f"a proxy answered .* status {status}; its log"),
        ):
            client.check(*QUESTION)
