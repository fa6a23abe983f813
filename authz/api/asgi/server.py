"""A gRPC server as an ASGI application: what the adapter uses of `grpc.aio.Server`, on a server that speaks
HTTP/2 and sends trailers.

Source: https://asgi.readthedocs.io/en/latest/specs/www.html and its extension `http.response.trailers`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NoReturn, TypeAlias

import grpc
import structlog

from authz.api.asgi.context import AsgiContext, Scope, Send
from authz.api.asgi.framing import Receive, StatusError, anybody, decompressed
from authz.api.asgi.turns import ConnectionTurns
from authz.domain.errors import UnknownMethodError
from authz.wire.errors import DETAILS_HEADER, status_of

Read: TypeAlias = Callable[[int, Callable[[], None]], Awaitable[bytes]]
"""Reads the only message of a call, given the size up to which it is decompressed and what to call before a
message is received that is compressed or large."""

log = structlog.get_logger()

_MAX_OPEN_BYTES = 4096
"""The size of the largest request of a method that needs no credential."""
_MAX_OPEN_STREAMS = 16
"""The number of streams of such methods that a connection may have. A client watches the health of a service
once."""
_PRESENCE_INTERVAL_S = 0.1
"""How soon a stream, which may send nothing for long, ends after its client has left."""
_OPEN_PRESENCE_INTERVAL_S = 1.0
"""The same of a stream that needs no credential: anybody may open many."""


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
        try:
            if not context.is_grpc:
                await context.refuse_content_type()
                return
            serve = self._serving.get(scope["raw_path"], _refuse)
            if scope["query_string"] or scope["method"] != "POST":
                serve = _refuse
            context.begin()
            await serve(context)
        except StatusError as error:
            await context.fail(error)
        except asyncio.CancelledError:
            # Without a failure, the client has left.
            if context.failure is not None:
                await context.fail(context.failure)
        except Exception as error:
            log.error("call failed", method=scope["path"], exc_info=error)  # noqa: TRY400  a line as any other
            await context.fail(StatusError(grpc.StatusCode.INTERNAL, "the call failed; try again"))
        finally:
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
        context.watch_client(_OPEN_PRESENCE_INTERVAL_S if _is_open(handler) else _PRESENCE_INTERVAL_S)
        if handler.request_streaming:
            await self._turns.wait(context.client)
            async for answer in handler.stream_stream(self._requests(handler, context), context):
                await context.write(answer)
        else:
            request = await self._request(handler, context)
            await handler.unary_stream(request, context)
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


async def _refuse(_: AsgiContext) -> NoReturn:
    status = status_of(UnknownMethodError())
    details = ((DETAILS_HEADER, status.SerializeToString()),)
    raise StatusError(grpc.StatusCode.UNIMPLEMENTED, status.message, details)
