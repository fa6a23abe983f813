"""Around every call: a request id, a log line, a bound on calls in flight, and errors as statuses.

The only place that aborts a call.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from authz.access.principal import actor_of
from authz.domain.errors import AuthzError, ErrorReason, InvalidArgumentError, OverloadedError
from authz.domain.ids import is_id, parse_id
from authz.runtime.logs import is_debug_enabled, is_info_enabled
from authz.wire.errors import internal_status, status_of

REQUEST_ID_HEADER = "x-request-id"
_CHECKS = "/authz.v1.AuthorizationService/"
_RETRY_AFTER_S = 0.1

log = structlog.get_logger()

Servicing = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]

request_id_var: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the call that is being served, for logs and the change log."""


class Calls:
    """What the generated code adds a servicer to, in place of the server: hands on each of its methods
    wrapped. gRPC's own interceptors do as much, and take a tenth of the rate of checks for it.

    Calls that answer with a stream live long: they have a bound of their own, so that they take
    nothing from the others.
    """

    def __init__(self, server: grpc.aio.Server, *, max_concurrent_calls: int, max_watches: int) -> None:
        self._server = server
        self._calls = _Bound(max_concurrent_calls, "calls in flight")
        self._watches = _Bound(max_watches, "watches")
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count(1)

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The generated code adds every method twice: they are taken by name, below."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Serve the methods of a service, wrapped."""
        wrapped = {name: self._wrap_handler(f"/{service}/{name}", each) for name, each in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, wrapped),))

    def _wrap_handler(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        # Requests are parsed in the call: what gRPC makes of one that cannot be is no error of ours.
        parse, serializer = handler.request_deserializer or bytes, handler.response_serializer
        if handler.unary_stream is not None:
            watching = self._wrap(method, parse, _writing(handler.unary_stream), self._watches)
            return grpc.unary_stream_rpc_method_handler(watching, response_serializer=serializer)
        if handler.stream_unary is not None:
            gathering = self._wrap(method, partial(_each, parse), handler.stream_unary, self._calls)
            return grpc.stream_unary_rpc_method_handler(gathering, response_serializer=serializer)
        answering = self._wrap(method, parse, handler.unary_unary, self._calls)
        return grpc.unary_unary_rpc_method_handler(answering, response_serializer=serializer)

    def _wrap(self, method: str, parse: Callable[[Any], Any], servicing: Any, bound: _Bound) -> Any:
        """What is around a call. One coroutine and no more: a check feels each."""
        is_check = method.startswith(_CHECKS)

        async def serve(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            started = time.perf_counter()
            request_id = ""
            # A line for each check would cost more than the check: they are told when they fail, or at
            # debug. Nor is a header read for it before, as to ask gRPC for one takes as long as to decide.
            tells = not is_check or is_debug_enabled()
            code = grpc.StatusCode.CANCELLED  # what a call is that ends without an answer or an error
            reason = ""
            bound.in_flight += 1
            try:
                request = parse(request)
                if tells:
                    request_id = _id_in(request) or _id_in_header(context) or self._new_id()
                    request_id_var.set(request_id)
                elif request.request_id:
                    parse_id(request.request_id, field="request_id")
                if bound.in_flight > bound.most:
                    bound.shed()
                response = await servicing(request, context)
            except Exception as error:  # noqa: BLE001  nothing that fails may allow: whatever it is, it is told
                request_id = request_id or _id_told(request, context) or self._new_id()
                status, reason = _status(error, method, request_id)
                code = _code(status)
            else:
                code = grpc.StatusCode.OK
                return response
            finally:
                bound.in_flight -= 1
                if (tells or code is not grpc.StatusCode.OK) and is_info_enabled():
                    told = {"method": method, "code": code.name, "reason": reason}
                    _tell(context, started, **told, request_id=request_id or self._new_id())
            # Not before it is counted out: a stream's client that does not read keeps its status waiting.
            return await _abort(context, status, reason)

        return serve

    def _new_id(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"


class _Bound:
    """How many of one sort of call may be in flight, and how many are."""

    def __init__(self, most: int, what: str) -> None:
        self.most = most
        self._what = what
        self.in_flight = 0

    def shed(self) -> NoReturn:
        """Raise the error of a call that is one too many."""
        raise OverloadedError(
            f"more than {self.most} {self._what}; try again",
            retry_after_s=_RETRY_AFTER_S,
            limit=str(self.most),
        )


def _writing(servicing: Any) -> Servicing:
    """A servicer's method that answers with a stream, as one that writes the stream itself."""
    if not inspect.isasyncgenfunction(servicing):
        return servicing  # type: ignore[no-any-return]  # grpc says nothing of what handlers are

    async def write_all(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        async for response in servicing(request, context):
            await context.write(response)

    return write_all


async def _each(parse: Callable[[bytes], Any], requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    """Those of a stream, parsed."""
    async for request in requests:
        yield parse(request)


def _tell(context: grpc.aio.ServicerContext[Any, Any], started: float, **told: str) -> None:
    elapsed_ms = round((time.perf_counter() - started) * 1000, 3)
    line = {name: text for name, text in told.items() if text}
    log.info("call", **line, caller=actor_of(context), elapsed_ms=elapsed_ms)


def _id_in(request: Any) -> str:
    stated = str(getattr(request, "request_id", ""))
    return parse_id(stated, field="request_id") if stated else ""


def _id_in_header(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """Empty for none, and for one that is no id: whoever set it, a proxy perhaps, is not who asks."""
    stated = ""
    for name, value in context.invocation_metadata() or ():
        if name == REQUEST_ID_HEADER:
            stated = value if isinstance(value, str) else value.decode("ascii", "replace")
    return stated if is_id(stated) else ""


def _id_told(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The id that a call that fails has stated, if it is well-formed."""
    try:
        return _id_in(request) or _id_in_header(context)
    except InvalidArgumentError:
        return ""


def _status(error: Exception, method: str, request_id: str) -> tuple[status_pb2.Status, str]:
    """The status of what a call has raised, and the reason: no text of a driver may reach a client."""
    if isinstance(error, DecodeError):
        error = InvalidArgumentError(
            ErrorReason.MALFORMED_FIELD,
            f"the request of {method.rpartition('/')[2]} cannot be read; send a message of package authz.v1",
            field="request",
        )
    if isinstance(error, AuthzError):
        return status_of(error), error.reason.value
    log.error("call failed", method=method, request_id=request_id, exc_info=error)
    return internal_status(request_id), ErrorReason.INTERNAL.value


def _code(status: status_pb2.Status) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == status.code)


async def _abort(
    context: grpc.aio.ServicerContext[Any, Any], status: status_pb2.Status, reason: str
) -> NoReturn:
    details: tuple[tuple[str, str | bytes], ...] = (("grpc-status-details-bin", status.SerializeToString()),)
    if reason == ErrorReason.NOT_FRESH_ENOUGH:
        # The time is up, and a client that tries again by itself would only hide why.
        details += (("grpc-retry-pushback-ms", "-1"),)
    try:
        await context.abort(_code(status), status.message, details)
    except grpc.aio.InternalError:
        # The client left before it took the status; grpc would log that as a fault.
        raise asyncio.CancelledError from None
    raise AssertionError("abort returned")
