"""The server on ASGI, called as a server of HTTP/2 calls it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from authz.api.asgi.server import AsgiContext, AsgiServer


async def test_opened_streams_do_not_make_the_call_of_another_connection_wait_for_all_of_them() -> None:
    started: list[str] = []

    async def shed(_requests: AsyncIterator[bytes], context: Any) -> bytes:
        started.append(context.connection())
        return b""

    async def answer(_request: bytes, context: Any) -> bytes:
        started.append(context.connection())
        return b""

    server = AsgiServer(max_message_bytes=1000)
    handlers: dict[str, Any] = {
        "Import": grpc.stream_unary_rpc_method_handler(shed, response_serializer=bytes),
        "Check": grpc.unary_unary_rpc_method_handler(answer, response_serializer=bytes),
    }
    server.add_registered_method_handlers("s", handlers)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": bytes(5), "more_body": False}

    async def send(_: Any) -> None:
        pass

    def call(method: str, port: int) -> Any:
        scope = {"raw_path": f"/s/{method}".encode(), "path": "", "headers": [], "client": ("greedy", port)}
        return server(scope, receive, send)

    await asyncio.gather(*(call("Import", 1) for _ in range(400)), call("Check", 2))
    assert started.index("ip:greedy:2") < 30
    assert len(started) == 401


async def _unused(*_: Any) -> Any:
    raise AssertionError


@pytest.mark.parametrize(
    ("client", "connection"),
    [(("10.0.0.1", 50_000), "ip:10.0.0.1:50000"), (("/run/authz.sock", 0), ""), (None, "")],
)
def test_a_call_is_its_transport(client: tuple[str, int] | None, connection: str) -> None:
    headers = [(b"x-one", b"1"), (b"x-two", b"a"), (b"x-two", b"b")]
    call = AsgiContext({"headers": headers, "client": client}, _unused, _unused)
    assert call.connection() == connection
    assert [call.header(name) for name in ("x-one", "x-two", "x-none")] == ["1", "b", ""]
    assert [call.header_values(name) for name in ("x-two", "x-none")] == [("a", "b"), ()]
    assert call.certificate() == b""
