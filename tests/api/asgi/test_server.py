"""The server on ASGI, called as a server of HTTP/2 calls it."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from authz.api.asgi.context import AsgiContext
from authz.api.asgi.framing import prefixed
from authz.api.asgi.server import AsgiServer

GRPC = b"application/grpc"


def scope_of(
    path: str,
    client: tuple[str, int] | None = None,
    *,
    method: str = "POST",
    query: bytes = b"",
    content_type: bytes = GRPC,
) -> dict[str, Any]:
    return {
        "method": method,
        "raw_path": path.encode(),
        "path": path,
        "query_string": query,
        "headers": [(b"content-type", content_type)] if content_type else [],
        "client": client,
    }


async def answer_to(
    scope: dict[str, Any], message: bytes = b"", parse: Any = None
) -> tuple[int, dict[bytes, bytes]]:
    """The HTTP status of a call of `/s/Check`, and its headers with its trailers."""

    async def answer(request: Any, _context: Any) -> bytes:
        if parse is None:
            await request(len(message), lambda: None)
        return b""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": prefixed(message), "more_body": False}

    async def send(event: Any) -> None:
        sent.append(event)

    server, sent = AsgiServer(max_message_bytes=10_000), list[Any]()
    handler: Any = grpc.unary_unary_rpc_method_handler(answer, parse, response_serializer=bytes)
    server.add_registered_method_handlers("s", {"Check": handler})
    await server(scope, receive, send)
    return sent[0]["status"], dict(itertools.chain(*(event.get("headers", ()) for event in sent)))


@pytest.mark.parametrize("parse", [None, bytes], ids=["with a credential", "open"])
@pytest.mark.parametrize("shape", ["unary_unary", "unary_stream"])
@pytest.mark.parametrize("sent", [b"", prefixed(bytes(9))[:-1]], ids=["nothing", "a part"])
async def test_a_client_that_stops_within_its_request_does_not_keep_its_call(
    monkeypatch: pytest.MonkeyPatch, sent: bytes, shape: str, parse: Any
) -> None:
    monkeypatch.setattr("authz.api.asgi.context.MAX_SILENCE_S", 0.01)
    parts = [{"type": "http.request", "body": sent, "more_body": True}] if sent else []
    events: list[Any] = []

    async def receive() -> dict[str, Any]:
        return parts.pop() if parts else await asyncio.Event().wait()  # type: ignore[return-value]  # never

    async def send(event: Any) -> None:
        events.append(event)

    async def answer(request: Any, _context: Any) -> bytes:
        await request(9, lambda: None)
        raise AssertionError("there is no request")

    server = AsgiServer(max_message_bytes=10_000)
    make = getattr(grpc, f"{shape}_rpc_method_handler")
    handler = make(answer, parse, response_serializer=bytes)
    server.add_registered_method_handlers("s", {"Check": handler})
    async with asyncio.timeout(20):
        await server(scope_of("/s/Check"), receive, send)
    assert dict(events[0]["headers"])[b"grpc-status"] == b"14"


@pytest.mark.parametrize("shape", ["unary_unary", "unary_stream"])
@pytest.mark.parametrize("deadline", [b"", b"60S"], ids=["without a deadline", "with a deadline"])
async def test_a_call_ends_when_its_client_leaves(
    monkeypatch: pytest.MonkeyPatch, deadline: bytes, shape: str
) -> None:
    monkeypatch.setattr("authz.api.asgi.context.UNARY_PRESENCE_INTERVAL_S", 0.001)
    events: list[Any] = []
    ended_by: list[BaseException] = []

    async def receive() -> dict[str, Any]:
        if waits.is_set():
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": prefixed(b""), "more_body": False}

    async def answer(request: Any, _context: Any) -> bytes:
        await request(9, lambda: None)
        waits.set()
        try:
            return await asyncio.Event().wait()  # type: ignore[return-value]  # never
        except asyncio.CancelledError as error:
            ended_by.append(error)
            raise

    async def send(event: Any) -> None:
        events.append(event)

    waits = asyncio.Event()
    server = AsgiServer(max_message_bytes=10_000)
    make = getattr(grpc, f"{shape}_rpc_method_handler")
    server.add_registered_method_handlers("s", {"Check": make(answer, response_serializer=bytes)})
    scope = scope_of("/s/Check")
    scope["headers"] += [(b"grpc-timeout", deadline)] if deadline else []
    async with asyncio.timeout(20) as limit:
        await server(scope, receive, send)
    assert ended_by and not events and not limit.expired()


@pytest.mark.parametrize("shape", ["unary_unary", "unary_stream"])
async def test_a_call_whose_client_has_left_is_not_kept(shape: str) -> None:
    """The server raises one error for all of them, to which Python adds the frames of each."""
    left = OSError("the client has left")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": prefixed(b""), "more_body": False}

    async def answer(request: Any, _context: Any) -> bytes:
        await request(9, lambda: None)
        return b""

    async def call() -> weakref.ref[Any]:
        async def send(_event: Any) -> None:
            raise left

        await server(scope_of("/s/Check"), receive, send)
        return weakref.ref(send)

    server = AsgiServer(max_message_bytes=10_000)
    make = getattr(grpc, f"{shape}_rpc_method_handler")
    server.add_registered_method_handlers("s", {"Check": make(answer, response_serializer=bytes)})
    calls = [await call() for _ in range(3)]
    await asyncio.sleep(0.001)  # until what looked for the client has ended, too
    gc.collect()
    assert [each() for each in calls] == [None] * 3


@pytest.mark.parametrize("interval_s", [0.001, 60.0], ids=["looks for its client", "has not looked"])
async def test_each_call_whose_deadline_passes_is_told_so(
    monkeypatch: pytest.MonkeyPatch, interval_s: float
) -> None:
    """Also if the timer of the event loop is early, as a third of those of uvloop are."""
    monkeypatch.setattr("authz.api.asgi.context.UNARY_PRESENCE_INTERVAL_S", interval_s)

    async def answer(request: Any, _context: Any) -> bytes:
        await asyncio.sleep(60)
        return b""

    server = AsgiServer(max_message_bytes=10_000)
    server.add_registered_method_handlers(
        "s", {"Check": grpc.unary_unary_rpc_method_handler(answer, bytes, response_serializer=bytes)}
    )

    async def call(timeout_us: int) -> bytes:
        events: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": prefixed(b""), "more_body": False}

        async def send(event: Any) -> None:
            events.append(event)

        scope = scope_of("/s/Check")
        scope["headers"].append((b"grpc-timeout", f"{timeout_us}u".encode()))
        await server(scope, receive, send)
        return bytes(dict(events[0]["headers"])[b"grpc-status"]) if events else b"no answer"

    assert {await call(3_000 + 70 * number) for number in range(40)} == {b"4"}


@pytest.mark.parametrize("content_type", [GRPC, b"application/grpc+proto", b"application/grpc;charset=utf-8"])
async def test_a_call_is_of_the_content_type_of_grpc(content_type: bytes) -> None:
    status, headers = await answer_to(scope_of("/s/Check", content_type=content_type))
    assert (status, headers[b"grpc-status"]) == (200, b"0")


@pytest.mark.parametrize(
    "content_type",
    [b"", b"text/plain", b"application/json", b"application/grpc-web", b"application/grpc-web+proto"],
)
async def test_what_a_web_page_could_send_is_no_call(content_type: bytes) -> None:
    status, headers = await answer_to(scope_of("/s/Check", content_type=content_type))
    assert (status, headers) == (415, {})


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/s/Check", b"x=1"),
        ("//s/Check", b""),
        ("/s/Check/", b""),
        ("/s/check", b""),
        ("/S/Check", b""),
        ("/s%2FCheck", b""),
        ("/s/%43heck", b""),
        ("/x/../s/Check", b""),
        ("s/Check", b""),
        ("", b""),
    ],
)
async def test_no_other_spelling_of_a_path_is_the_method(path: str, query: bytes) -> None:
    status, headers = await answer_to(scope_of(path, query=query))
    assert (status, headers[b"grpc-status"]) == (200, b"12")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "post"])
async def test_a_call_is_made_by_post(method: str) -> None:
    status, headers = await answer_to(scope_of("/s/Check", method=method))
    assert (status, headers[b"grpc-status"]) == (200, b"12")


@pytest.mark.parametrize(("parse", "size_bytes"), [(None, 10_000), (bytes, 4096)])
async def test_a_method_that_parses_without_a_credential_takes_small_requests(
    parse: Any, size_bytes: int
) -> None:
    for size, code in ((size_bytes, b"0"), (size_bytes + 1, b"8")):
        _, headers = await answer_to(scope_of("/s/Check"), bytes(size), parse)
        assert headers[b"grpc-status"] == code


async def test_opened_streams_do_not_make_the_call_of_another_connection_wait_for_all_of_them() -> None:
    started: list[str] = []

    async def shed(_requests: AsyncIterator[bytes], context: Any) -> bytes:
        started.append(context.connection())
        return b""

    async def answer(request: Any, context: Any) -> bytes:
        await request(0, lambda: None)
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
        return server(scope_of(f"/s/{method}", ("greedy", port)), receive, send)

    await asyncio.gather(*(call("Import", 1) for _ in range(400)), call("Check", 2))
    assert started.index("ip:greedy:2") < 30
    assert len(started) == 401


async def test_a_connection_may_open_only_some_streams_without_a_credential() -> None:
    server, leaving, codes = AsgiServer(max_message_bytes=1000), asyncio.Event(), list[bytes]()

    async def watch(_request: bytes, _context: Any) -> None:
        await asyncio.Event().wait()

    async def receive() -> dict[str, Any]:
        kind = "http.disconnect" if leaving.is_set() else "http.request"
        return {"type": kind, "body": bytes(5), "more_body": False}

    async def send(event: Any) -> None:
        codes.extend(value for name, value in event.get("headers", ()) if name == b"grpc-status")

    def opened(number: int, port: int) -> list[asyncio.Task[None]]:
        scope = scope_of("/s/Watch", ("10.0.0.1", port))
        return [asyncio.create_task(server(scope, receive, send)) for _ in range(number)]

    handler: Any = grpc.unary_stream_rpc_method_handler(watch, bytes, bytes)
    server.add_registered_method_handlers("s", {"Watch": handler})
    calls = [*opened(20, 1), *opened(16, 2)]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    assert [call.done() for call in calls] == [False] * 16 + [True] * 4 + [False] * 16
    assert codes == [b"8"] * 4
    leaving.set()
    await asyncio.gather(*calls)
    leaving.clear()
    again = opened(16, 1)
    await asyncio.sleep(0)
    leaving.set()
    await asyncio.gather(*again)
    assert len(codes) == 4


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
