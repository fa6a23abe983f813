"""A gRPC server as an ASGI application: what the adapter uses of `grpc.aio.Server`, on a server that speaks
HTTP/2 and sends trailers.

Source: https://asgi.readthedocs.io/en/latest/specs/www.html and its extension `http.response.trailers`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, NoReturn, TypeAlias
from urllib.parse import unquote_to_bytes

import grpc
import structlog

from authz.api.asgi.framing import (
    Compressed,
    Event,
    Headers,
    Receive,
    StatusError,
    anybody,
    decompressed,
    messages,
    only_message,
    prefixed,
    timeout_s,
)
from authz.api.asgi.turns import ConnectionTurns

Scope: TypeAlias = Mapping[str, Any]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
Read: TypeAlias = Callable[[int, Callable[[], None]], Awaitable[bytes]]
"""Reads the only message of a call, given the size up to which it is decompressed and what to call before a
message is received that is compressed or large."""

log = structlog.get_logger()

_CERTIFICATE_HEADER = b"x-forwarded-client-cert"
"""Set by Envoy, which removes what a client sends under this name."""
_CONTENT_TYPE = (b"content-type", b"application/grpc")
_CONTENT_TYPES = frozenset((b"application/grpc", b"application/grpc+proto"))
_UNSUPPORTED: Event = {"type": "http.response.start", "status": 415, "headers": []}
_START: Event = {
    "type": "http.response.start",
    "status": 200,
    "headers": [_CONTENT_TYPE, (b"grpc-accept-encoding", b"identity,gzip,deflate")],
    "trailers": True,
}
_OK: Event = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}
_LARGE_BYTES = 16 * 1024
"""A call with a larger answer lasts until its client reads."""
_MAX_OPEN_BYTES = 4096
"""The size of the largest request of a method that needs no credential."""
_MAX_OPEN_STREAMS = 16
"""The number of streams of such methods that a connection may have. A client watches the health of a service
once."""
_PRESENCE_INTERVAL_S = 0.1
"""How soon a call that sends nothing ends after its client has left."""
_OPEN_PRESENCE_INTERVAL_S = 1.0
"""The same for a call that needs no credential: anybody may open many."""
_MAX_KEPT = 1024


class AsgiContext:
    """One call: a `Transport`, and what the adapter uses of `grpc.aio.ServicerContext`."""

    __slots__ = (
        "_begun",
        "_deadline",
        "_failure",
        "_headers",
        "_named",
        "_receive",
        "_releases",
        "_send",
        "client",
        "has_request",
        "serialize",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.client: tuple[str, int] | None = scope["client"]
        self.has_request = False
        """Whether the only message has been read."""
        self.serialize: Callable[[Any], bytes] = bytes
        self._receive = receive
        self._send = send
        self._failure: StatusError | None = None
        self._begun = False
        self._releases: list[Callable[[], None]] = []
        self._headers: Headers = scope["headers"]
        self._named: dict[bytes, bytes] = dict(self._headers)
        self._deadline: float | None = None

    @property
    def is_grpc(self) -> bool:
        """Whether it is a call of gRPC by its content type.

        A web page cannot send a request of this type. It can send others, with the client certificate of its
        reader, and to an address that only this machine reaches.
        Source: https://fetch.spec.whatwg.org/#cors-safelisted-request-header
        """
        return self._named.get(b"content-type", b"").partition(b";")[0] in _CONTENT_TYPES

    def begin(self) -> float | None:
        """Set the deadline; return the seconds until then, None without one. Raises `StatusError`."""
        stated = self._named.get(b"grpc-timeout")
        if stated is None:
            return None
        left_s = timeout_s(stated)
        self._deadline = time.monotonic() + left_s
        return left_s

    def certificate(self) -> bytes:
        """As `Transport.certificate`."""
        stated = self._named.get(_CERTIFICATE_HEADER)
        return b"" if stated is None else _certificate(stated)

    def connection(self) -> str:
        """As `Transport.connection`. Clients at a Unix socket have no address."""
        return f"ip:{self.client[0]}:{self.client[1]}" if self.client and self.client[1] else ""

    def header(self, name: str) -> str:
        """As `Transport.header`; of several values the last."""
        return self._named.get(name.encode(), b"").decode("latin-1")

    def header_values(self, name: str) -> tuple[str, ...]:
        """As `Transport.header_values`."""
        wanted = name.encode()
        return tuple(value.decode("latin-1") for each, value in self._headers if each == wanted)

    def when_sent(self, release: Callable[[], None]) -> None:
        """As `Transport.when_sent`."""
        self._releases.append(release)

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return None if self._deadline is None else self._deadline - time.monotonic()

    def done(self) -> None:
        """Call what waits for the end of the call."""
        for release in self._releases:
            release()

    def failure_now(self) -> StatusError | None:
        """Why the server cancels the call; None if it does not."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed")
        return self._failure

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> NoReturn:
        """End the call with this status."""
        raise StatusError(code, details, trailing_metadata)

    def request(
        self, max_message_bytes: int, before_large: Callable[[], None]
    ) -> Awaitable[bytes | Compressed]:
        """The only message of the client. Raises as `only_message`."""
        encoding = self._named.get(b"grpc-encoding")
        return only_message(
            self._receive, encoding, max_message_bytes=max_message_bytes, before_large=before_large
        )

    async def requests(self, max_message_bytes: int) -> AsyncIterator[bytes]:
        """The messages of the client. Cancels the caller at one that cannot be read."""
        encoding = self._named.get(b"grpc-encoding")
        try:
            async for message in messages(self._receive, encoding, max_message_bytes=max_message_bytes):
                yield decompressed(message)
        except StatusError as error:
            self._failure = error
            raise asyncio.CancelledError from None

    async def write(self, answer: Any) -> None:
        """Send one of several answers; return once there is room for the next.

        Cancels the caller when the client has left, as all that sends.
        """
        await self._send_all(*self._start(), _body(prefixed(self.serialize(answer)), more=True))

    async def finish(self, answer: Any) -> None:
        """Send the only answer and the status OK."""
        body = prefixed(self.serialize(answer))
        if len(body) > _LARGE_BYTES:
            # The server takes the empty part once the client has read most of the answer.
            await self._send_all(_START, _body(body, more=True), _body(b"", more=True), _body(b""), _OK)
        else:
            await self._send_all(_START, _body(body), _OK)

    async def end(self) -> None:
        """Send the status OK, after the last of several answers."""
        await self._send_all(*self._start(), _body(b""), _OK)

    async def refuse_content_type(self) -> None:
        """Answer a request that is not gRPC."""
        await self._send_all(_UNSUPPORTED, _body(b""))

    async def fail(self, error: StatusError) -> None:
        """Send the status of an error."""
        trailers = error.trailers()
        with suppress(asyncio.CancelledError):
            if self._begun:
                await self._send_all(_body(b""), {"type": "http.response.trailers", "headers": trailers})
            else:
                headers = [_CONTENT_TYPE, *trailers]
                start = {"type": "http.response.start", "status": 200, "headers": headers}
                await self._send_all(start, _body(b""))

    def _start(self) -> tuple[Event, ...]:
        """The start of the answer, unless it was sent."""
        return () if self._begun else (_START,)

    async def _send_all(self, *events: Event) -> None:
        self._begun = True
        try:
            for event in events:
                await self._send(event)
        except OSError:
            raise asyncio.CancelledError from None

    async def _has_left(self) -> bool:
        return bool((await self._receive())["type"] == "http.disconnect")

    async def until_client_leaves(self, interval_s: float) -> None:
        """Return once the client has disconnected. While the request is read, its reader sees that."""
        while not self.has_request or not await self._has_left():  # noqa: ASYNC110  neither waits
            await asyncio.sleep(interval_s)


class AsgiServer:
    """An ASGI application for the scope `http`. Its methods are added before it serves."""

    def __init__(self, *, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._turns = ConnectionTurns()
        self._open_streams: Counter[str] = Counter()
        self._serving: dict[bytes, Callable[[AsgiContext], Awaitable[None]]] = {}

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """As `grpc.aio.Server.add_registered_method_handlers`."""
        for name, handler in handlers.items():
            serve = self._answer_stream if handler.response_streaming else self._answer_once
            self._serving[f"/{service}/{name}".encode()] = partial(serve, handler)

    def add_generic_rpc_handlers(self, _: object) -> None:
        """Does nothing: who calls it registers the same methods by their names."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call; return when the client has its answer, or has left."""
        context = AsgiContext(scope, receive, send)
        timer = None
        try:
            if not context.is_grpc:
                await context.refuse_content_type()
                return
            serve = _refuse if scope["query_string"] else self._serving.get(scope["raw_path"], _refuse)
            left_s = context.begin()
            if left_s is not None:
                timer = _cancel_in(left_s)
            await serve(context)
        except StatusError as error:
            await context.fail(error)
        except asyncio.CancelledError:
            # Without a failure, the client has left.
            if (failure := context.failure_now()) is not None:
                await context.fail(failure)
        except Exception as error:
            log.error("call failed", method=scope["path"], exc_info=error)  # noqa: TRY400  a line as any other
            await context.fail(StatusError(grpc.StatusCode.INTERNAL, "the call failed; try again"))
        finally:
            if timer is not None:
                timer.cancel()
            context.done()

    async def _answer_once(self, handler: Any, context: AsgiContext) -> None:
        context.serialize = handler.response_serializer
        if handler.request_streaming:
            # Before the first message, since a stream beyond the limits is refused without reading any.
            await self._turns.wait(context.client)
            answer = await handler.stream_unary(self._requests(handler, context), context)
        else:
            answer = await handler.unary_unary(await self._request(handler, context), context)
        await context.finish(answer)

    async def _answer_stream(self, handler: Any, context: AsgiContext) -> None:
        context.serialize = handler.response_serializer
        if _is_open(handler):
            self._admit_open_stream(context)
        if handler.request_streaming:
            await self._turns.wait(context.client)
            async for answer in handler.stream_stream(self._requests(handler, context), context):
                await context.write(answer)
        else:
            request = await self._request(handler, context)
            interval_s = _OPEN_PRESENCE_INTERVAL_S if _is_open(handler) else _PRESENCE_INTERVAL_S
            await _while_client_stays(context, handler.unary_stream(request, context), interval_s)
        await context.end()

    async def _request(self, handler: Any, context: AsgiContext) -> Any:
        """The only message of a call. A handler without a deserializer gets a `Read`, because it knows the
        caller and the limits."""
        if handler.request_deserializer is None:
            return partial(self._read, context)
        received = await context.request(self._max_bytes(handler), anybody)
        context.has_request = True
        await self._turns.wait(context.client)
        return handler.request_deserializer(decompressed(received))

    async def _read(self, context: AsgiContext, max_bytes: int, before_large: Callable[[], None]) -> bytes:
        """As `Read`, in the turn of its connection."""
        received = await context.request(self._max_message_bytes, before_large)
        context.has_request = True
        await self._turns.wait(context.client)
        return decompressed(received, max_bytes)

    async def _requests(self, handler: Any, context: AsgiContext) -> AsyncIterator[Any]:
        parse = handler.request_deserializer
        async for message in context.requests(self._max_bytes(handler)):
            yield message if parse is None else parse(message)

    def _max_bytes(self, handler: Any) -> int:
        if not _is_open(handler):
            return self._max_message_bytes
        return min(_MAX_OPEN_BYTES, self._max_message_bytes)

    def _admit_open_stream(self, context: AsgiContext) -> None:
        """Count a stream that no limit of callers counts. Clients at a Unix socket have no such limit."""
        connection = context.connection()
        if not connection:
            return
        if self._open_streams[connection] >= _MAX_OPEN_STREAMS:
            raise StatusError(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the connection has {_MAX_OPEN_STREAMS} streams of health or reflection; end one first",
            )
        self._open_streams[connection] += 1
        context.when_sent(partial(self._release_open_stream, connection))

    def _release_open_stream(self, connection: str) -> None:
        self._open_streams[connection] -= 1
        if not self._open_streams[connection]:
            del self._open_streams[connection]


def _is_open(handler: Any) -> bool:
    """Whether a method needs no credential: health and reflection, which parse their requests themselves."""
    return handler.request_deserializer is not None


def _body(body: bytes, *, more: bool = False) -> Event:
    return {"type": "http.response.body", "body": body, "more_body": more}


def _cancel_in(left_s: float) -> asyncio.TimerHandle:
    """Cancel this task then. `asyncio.timeout` takes as long as to decide."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  the server runs each call in one
    return asyncio.get_running_loop().call_later(left_s, task.cancel)


async def _refuse(_: AsgiContext) -> NoReturn:
    raise StatusError(grpc.StatusCode.UNIMPLEMENTED, "the server has no such method")


async def _while_client_stays(context: AsgiContext, running: Awaitable[None], interval_s: float) -> None:
    """Run what may send nothing for long, and cancel it when the client leaves."""
    task = asyncio.ensure_future(running)
    leaving = asyncio.ensure_future(context.until_client_leaves(interval_s))
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise asyncio.CancelledError
        task.result()
    finally:
        task.cancel()
        leaving.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


@lru_cache(_MAX_KEPT)
def _certificate(stated: bytes) -> bytes:
    """The certificate as PEM. Source: Envoy's documentation of `x-forwarded-client-cert`."""
    return unquote_to_bytes(stated.partition(b'Cert="')[2].partition(b'"')[0])
