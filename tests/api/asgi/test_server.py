"""The server on ASGI, called as a server of HTTP/2 calls it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from authz.api.asgi.server import AsgiServer


async def test_opened_streams_do_not_make_the_call_of_another_connection_wait_for_all_of_them() -> None:
    started: list[str] = []

    async def shed(_requests: AsyncIterator[bytes], context: Any) -> bytes:
        started.append(context.peer())
        return b""

    async def answer(_request: bytes, context: Any) -> bytes:
        started.append(context.peer())
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
