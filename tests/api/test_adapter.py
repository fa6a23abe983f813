"""The gRPC adapter: a stream goes through the pipeline as a single answer does."""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from authz.access.authentication import Authenticator, Transport
from authz.access.permission import AllowAll
from authz.api.asgi.server import AsgiServer
from authz.api.call import Call, CallKind
from authz.api.endpoints import endpoints_of
from authz.api.grpc.adapter import add_endpoints
from authz.api.pipeline import Pipeline
from authz.domain.errors import AlreadyExistsError, ErrorReason
from authz.v1 import watch_pb2, watch_pb2_grpc
from tests.service import in_process, reason_of


class Twice:
    """A WatchService that sends the request id twice and then ends as the test says."""

    service = watch_pb2.DESCRIPTOR.services_by_name["WatchService"]

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    async def Watch(  # noqa: N802  named by the contract
        self,
        _request: watch_pb2.WatchRequest,
        call: Call,
        send: Callable[[watch_pb2.WatchResponse], Awaitable[None]],
    ) -> None:
        for _ in range(2):
            answer = watch_pb2.WatchResponse()
            answer.checkpoint.read_up_to.token = call.request_id
            await send(answer)
        if self._error is not None:
            raise self._error


@in_process
@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (None, "OK", ""),
        (AlreadyExistsError(ErrorReason.ENTITY_EXISTS, "it is there"), "ALREADY_EXISTS", "ENTITY_EXISTS"),
        (RuntimeError("secret"), "INTERNAL", "INTERNAL"),
    ],
)
async def test_a_stream_is_served_as_a_call_is(
    log_of_the_test: None, error: Exception | None, code: str, reason: str
) -> None:
    pipeline = Pipeline(
        authenticators=(), permissions=AllowAll(), concurrency_limits=dict.fromkeys(CallKind, 1)
    )
    server = grpc.aio.server()
    add_endpoints(server, pipeline, endpoints_of(Twice(error)))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    answers: list[str] = []
    with capture_logs() as lines:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = watch_pb2_grpc.WatchServiceStub(channel)
            call = stub.Watch(watch_pb2.WatchRequest(), metadata=(("x-request-id", "r-1"),))
            found = ""
            try:
                async for answer in call:
                    answers.append(answer.checkpoint.read_up_to.token)
            except grpc.aio.AioRpcError as failure:
                found = reason_of(failure)
                assert "secret" not in str(failure.details())
    await server.stop(0)
    assert (await call.code()).name == code
    assert found == reason
    # The answers that precede an error may be lost with it: the client reads the status first.
    assert answers in ([], ["r-1"], ["r-1"] * 2)
    assert answers or error
    told = [(line["code"], line["request_id"]) for line in lines if line["event"] == "call"]
    assert told == [(code, "r-1")]


class NobodyAuthenticator(Authenticator):
    """Finds no credential in any call."""

    def authenticate(self, transport: Transport) -> None:
        """None."""


async def status_of_compressed(packed: bytes, *authenticators: Authenticator) -> tuple[str, str]:
    """The code and the message of a `Watch` whose request, over ASGI, is `packed`."""
    pipeline = Pipeline(
        authenticators=authenticators, permissions=AllowAll(), concurrency_limits=dict.fromkeys(CallKind, 1)
    )
    server = AsgiServer(max_message_bytes=1 << 22)
    for_server: Any = server
    add_endpoints(for_server, pipeline, endpoints_of(Twice(None)))
    path, body = "/authz.v1.WatchService/Watch", b"\1" + len(packed).to_bytes(4, "big") + packed
    headers = [(b"content-type", b"application/grpc"), (b"grpc-encoding", b"gzip")]
    scope = {
        "method": "POST",
        "raw_path": path.encode(),
        "path": path,
        "query_string": b"",
        "headers": headers,
        "client": None,
    }
    arriving = [{"type": "http.request", "body": body, "more_body": False}]
    told: dict[bytes, bytes] = {}

    async def receive() -> dict[str, Any]:
        return arriving.pop() if arriving else {"type": "http.request", "body": b"", "more_body": False}

    async def send(event: Any) -> None:
        told.update(event.get("headers", ()))

    await server(scope, receive, send)
    codes = {str(code.value[0]).encode(): code.name for code in grpc.StatusCode}
    return codes[told[b"grpc-status"]], told.get(b"grpc-message", b"").decode()


async def test_a_compressed_request_is_read(log_of_the_test: None) -> None:
    packed = gzip.compress(watch_pb2.WatchRequest().SerializeToString())
    assert await status_of_compressed(packed) == ("OK", "")


async def test_a_compressed_request_is_bounded_as_any_other_of_its_method(log_of_the_test: None) -> None:
    code, told = await status_of_compressed(gzip.compress(bytes(1 << 22)))
    assert code == "INVALID_ARGUMENT"
    assert "the request of Watch has more than " in told


async def test_only_a_caller_with_a_credential_has_its_request_decompressed(log_of_the_test: None) -> None:
    assert (await status_of_compressed(b"no gzip"))[0] == "INTERNAL"
    assert (await status_of_compressed(b"no gzip", NobodyAuthenticator()))[0] == "UNAUTHENTICATED"
