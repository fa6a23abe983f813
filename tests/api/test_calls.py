"""Streams go through the same way as single answers: request id, log line, errors as statuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from authz.api.grpc.calls import Calls, request_id_var
from structlog.testing import capture_logs

from authz.domain.errors import AlreadyExistsError, ErrorReason
from tests.service import reason_of


async def generate(request: bytes, _context: Any) -> AsyncIterator[bytes]:
    """Twice the request id, then what the request asks for."""
    for _ in range(2):
        yield request_id_var.get().encode()
    if request == b"there":
        raise AlreadyExistsError(ErrorReason.ENTITY_EXISTS, "it is there")
    if request == b"broken":
        raise RuntimeError("secret")


async def write(request: bytes, context: Any) -> None:
    """The same, writing by itself."""
    async for answer in generate(request, context):
        await context.write(answer)


@pytest.mark.parametrize("method", ["Generate", "Write"])
@pytest.mark.parametrize(
    ("request_bytes", "code", "reason"),
    [(b"", "OK", ""), (b"there", "ALREADY_EXISTS", "ENTITY_EXISTS"), (b"broken", "INTERNAL", "INTERNAL")],
)
async def test_a_stream_is_served_as_a_call_is(
    method: str, request_bytes: bytes, code: str, reason: str
) -> None:
    handlers: Any = {
        "Generate": grpc.unary_stream_rpc_method_handler(generate),
        "Write": grpc.unary_stream_rpc_method_handler(write),
    }
    server = grpc.aio.server()
    calls = Calls(server, max_concurrent_calls=1, max_watches=1)
    calls.add_registered_method_handlers("authz.v1.Streams", handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    answers: list[bytes] = []
    with capture_logs() as lines:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stream: Any = channel.unary_stream(f"/authz.v1.Streams/{method}")
            call = stream(request_bytes, metadata=(("x-request-id", "r-1"),))
            try:
                answers += [answer async for answer in call]
                found = ""
            except grpc.aio.AioRpcError as error:
                found = reason_of(error)
                answers.append(b"r-1")
                assert "secret" not in str(error.details())
    await server.stop(0)
    assert (await call.code()).name == code
    assert (found, answers[0]) == (reason, b"r-1")
    told = [(line["code"], line["request_id"]) for line in lines if line["event"] == "call"]
    assert told == [(code, "r-1")]
