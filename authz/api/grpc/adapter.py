"""Carries calls between gRPC's server and the pipeline. The only module that knows `grpc.aio`.

The adapter, not an interceptor, is around each method: interceptors take two coroutines and a closure for
each call. See docs/decisions/0017.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import Message

from authz.access.authentication import Transport
from authz.api.asgi.context import AsgiContext
from authz.api.asgi.server import Read
from authz.api.call import Call
from authz.api.endpoints import Endpoint
from authz.api.pipeline import Pipeline
from authz.domain.errors import AuthzError, ErrorReason, UnknownMethodError
from authz.wire.errors import DETAILS_HEADER, status_of
from authz.wire.limits import SMALL_BYTES

GrpcContext: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Context: TypeAlias = GrpcContext | AsgiContext

_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcTransport(Transport):
    """What gRPC says of a call. To ask it for headers takes as long as to decide."""

    __slots__ = ("_context",)

    def __init__(self, context: GrpcContext) -> None:
        self._context = context

    def certificate(self) -> bytes:
        for pem in (self._context.auth_context() or {}).get("x509_pem_cert", ()):
            return bytes(pem)
        return b""

    def connection(self) -> str:
        peer = self._context.peer()
        return "" if peer.startswith("unix") else str(peer)  # clients at a Unix socket have no address

    def when_sent(self, release: Callable[[], None]) -> None:
        context: Any = self._context
        # A client that does not read has not been sent its answer.
        context.add_done_callback(lambda _: release())

    def header(self, name: str) -> str:
        found = self.header_values(name)
        return found[-1] if found else ""

    def header_values(self, name: str) -> tuple[str, ...]:
        return tuple(
            value if isinstance(value, str) else value.decode("ascii", "replace")
            for key, value in self._context.invocation_metadata() or ()
            if key == name
        )


def add_endpoints(server: grpc.aio.Server, pipeline: Pipeline, endpoints: Iterable[Endpoint]) -> None:
    """Let a server, before it starts, serve these methods.

    Each method is registered by its name, and so has a queue of its own in which calls wait to be accepted.
    gRPC accepts only one call of a queue in a few iterations of the event loop: in one queue for all, a
    revocation would wait behind everything else that arrives.
    """
    for endpoint in endpoints:
        _, service, method = endpoint.method.name.split("/")
        server.add_registered_method_handlers(service, {method: _handler(pipeline, endpoint)})


def refuse_unknown_methods(server: grpc.aio.Server) -> None:
    """Let a server, once every method is added, refuse other methods by an error as any other."""
    server.add_generic_rpc_handlers((_UnknownMethods(),))


class _UnknownMethods(grpc.GenericRpcHandler):
    """gRPC's own refusal has no `ErrorInfo`."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return _UNKNOWN_METHOD


async def _refuse_method(_: object, context: GrpcContext) -> NoReturn:
    await _abort(context, UnknownMethodError())


_UNKNOWN_METHOD: Any = grpc.stream_stream_rpc_method_handler(_refuse_method)
"""Of the form that takes whatever a client sends."""


def _handler(pipeline: Pipeline, endpoint: Endpoint) -> Any:
    """A handler that takes a request as bytes: a malformed one is then answered as any other bad request."""

    async def serve(received: Any, context: Context) -> Any:
        run = endpoint.run
        if endpoint.server_streams:
            run = partial(run, send=partial(_send, context))
        transport = context if isinstance(context, AsgiContext) else GrpcTransport(context)
        request: Any
        try:
            if endpoint.client_streams:
                request = _parse_each(endpoint, received)
            else:
                request = await _parse(pipeline, endpoint, received, transport)
        except AuthzError as error:
            request, run = endpoint.request_type(), partial(_refuse, error.with_traceback(None))
        # The traceback of an error refers to this frame, and is freed only by a garbage collection, which may
        # be gigabytes of requests away.
        del received
        remaining_s = context.time_remaining()
        deadline = None if remaining_s is None else time.monotonic() + remaining_s
        try:
            call = endpoint.call(request, transport, deadline)
            return await pipeline.serve(call, run, request)
        except AuthzError as error:
            return await _abort(context, error)

    if endpoint.client_streams:
        return grpc.stream_unary_rpc_method_handler(serve, response_serializer=_serialize)
    if endpoint.server_streams:
        return grpc.unary_stream_rpc_method_handler(serve, response_serializer=_serialize)
    return grpc.unary_unary_rpc_method_handler(serve, response_serializer=_serialize)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


async def _parse(
    pipeline: Pipeline, endpoint: Endpoint, received: bytes | Read, transport: Transport
) -> Message:
    """The only request of a call. Raises as `Endpoint.parse`, and, before it reads a large request, as
    `Pipeline.require_credential`."""
    require_credential = partial(pipeline.require_credential, transport)
    if not isinstance(received, bytes):
        received = await received(endpoint.limits.max_bytes, require_credential)
    elif len(received) > SMALL_BYTES:
        require_credential()
    return endpoint.parse(received)


async def _parse_each(endpoint: Endpoint, requests: AsyncIterator[bytes]) -> AsyncIterator[Message]:
    async for request in requests:
        yield endpoint.parse(request)


async def _refuse(error: AuthzError, _request: Message, _call: Call) -> NoReturn:
    raise error


async def _send(context: Context, message: Message) -> None:
    """Write to a stream. Cancels the caller when the call is over."""
    try:
        await context.write(message)
    except grpc.aio.BaseError:
        # gRPC tells a writer before it cancels the task.
        raise asyncio.CancelledError from None


async def _abort(context: Context, error: AuthzError) -> NoReturn:
    status = status_of(error)
    details: tuple[tuple[str, str | bytes], ...] = ((DETAILS_HEADER, status.SerializeToString()),)
    pushback_ms = _pushback_ms(error, context.time_remaining())
    if pushback_ms is not None:
        details += (("grpc-retry-pushback-ms", str(pushback_ms)),)
    try:
        await context.abort(_STATUS_CODES[status.code], status.message, details)
    except grpc.aio.AbortError as aborted:
        # gRPC keeps this error for the context, and the context for the frames of its traceback: a cycle that
        # no garbage collection frees, with the request and what was read of the replica.
        asyncio.get_running_loop().call_soon(_forget_frames, aborted)
        raise
    except grpc.aio.InternalError:
        # The client left before it took the status; gRPC would log that as a fault.
        raise asyncio.CancelledError from None
    raise AssertionError("abort returned")


def _forget_frames(error: BaseException) -> None:
    error.__traceback__ = error.__context__ = None


def _pushback_ms(error: AuthzError, remaining_s: float | None) -> int | None:
    """When a client that retries by itself may do so; negative for never, None as it likes.

    When its time is up by then, a retry would only hide why. Source: gRFC A6, "Pushback".
    """
    if error.reason is ErrorReason.NOT_FRESH_ENOUGH:
        return -1
    if not error.retry_after_s:
        return None
    is_in_time = remaining_s is None or error.retry_after_s < remaining_s
    return math.ceil(error.retry_after_s * 1000) if is_in_time else -1
