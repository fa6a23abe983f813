"""Around every call: a request id, a log line, a bound on calls in flight, and errors as statuses.

The only place that aborts a call.
"""

from __future__ import annotations

import asyncio
import inspect
import secrets
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, NoReturn

import grpc
import structlog
from google.rpc import status_pb2

from authz.domain.errors import AuthzError, OverloadedError
from authz.domain.ids import parse_id
from authz.service.errors import internal_status, status_of

REQUEST_ID_HEADER = "x-request-id"
_OWN_METHODS = "/authz.v1."
_RETRY_AFTER_S = 0.1

log = structlog.get_logger()

Servicing = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]

request_id_var: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the call that is being served, for logs and the change log."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the calls of this service's own methods; health and reflection pass as they are.

    Calls that answer with a stream live long: they have a bound of their own, so that they take
    nothing from the others.
    """

    def __init__(self, *, max_concurrent_calls: int, max_watches: int) -> None:
        self._calls = _Bound(max_concurrent_calls, "calls in flight")
        self._watches = _Bound(max_watches, "watches")
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Replace the behaviour of the handler by one that goes through `_serve`."""
        method = str(handler_call_details.method)
        if method in self._wrapped:
            return self._wrapped[method]
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith(_OWN_METHODS):
            return handler
        # Only methods that there are come here, so a caller cannot make this grow.
        self._wrapped[method] = wrapped = self._wrap_handler(method, handler)
        return wrapped

    def _wrap_handler(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        serialize: dict[str, Any] = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_stream is not None:
            watching = self._wrap(method, _writing(handler.unary_stream), self._watches)
            return grpc.unary_stream_rpc_method_handler(watching, **serialize)
        if handler.stream_unary is not None:
            gathering = self._wrap(method, handler.stream_unary, self._calls)
            return grpc.stream_unary_rpc_method_handler(gathering, **serialize)
        answering = self._wrap(method, handler.unary_unary, self._calls)
        return grpc.unary_unary_rpc_method_handler(answering, **serialize)

    def _wrap(self, method: str, servicing: Any, bound: _Bound) -> Any:
        async def wrapped(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            return await _serve(method, servicing, bound, request, context)

        return wrapped


class _Bound:
    """How many of one sort of call may be in flight, and how many are."""

    def __init__(self, most: int, what: str) -> None:
        self._most = most
        self._what = what
        self.in_flight = 0

    def shed_excess(self) -> None:
        """Raises `OverloadedError` when the call that was counted last is one too many."""
        if self.in_flight > self._most:
            raise OverloadedError(
                f"more than {self._most} {self._what}; try again",
                retry_after_s=_RETRY_AFTER_S,
                limit=str(self._most),
            )


async def _serve(
    method: str,
    servicing: Servicing,
    bound: _Bound,
    request: Any,
    context: grpc.aio.ServicerContext[Any, Any],
) -> Any:
    started = time.perf_counter()
    request_id = secrets.token_hex(8)
    code = grpc.StatusCode.CANCELLED  # what a call is that ends without an answer or an error
    bound.in_flight += 1
    try:
        request_id = _stated_request_id(request, context) or request_id
        request_id_var.set(request_id)
        bound.shed_excess()
        response = await servicing(request, context)
    except AuthzError as error:
        status = status_of(error)
        code = _code(status)
    except Exception:
        # Nothing that fails may allow, and no text of a driver may reach a client.
        status = internal_status(request_id)
        code = grpc.StatusCode.INTERNAL
        log.exception("call failed", method=method, request_id=request_id)
    else:
        code = grpc.StatusCode.OK
        return response
    finally:
        bound.in_flight -= 1
        elapsed_ms = round((time.perf_counter() - started) * 1000, 3)
        log.info("call", method=method, code=code.name, request_id=request_id, elapsed_ms=elapsed_ms)
    # Not before the call is counted out: a stream's client that does not read keeps its status waiting.
    return await _abort(context, status)


def _writing(servicing: Any) -> Servicing:
    """A servicer's method that answers with a stream, as one that writes the stream itself."""
    if not inspect.isasyncgenfunction(servicing):
        return servicing  # type: ignore[no-any-return]  # grpc says nothing of what handlers are

    async def write_all(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        async for response in servicing(request, context):
            await context.write(response)

    return write_all


def _stated_request_id(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> str:
    stated = str(getattr(request, "request_id", ""))
    if not stated:
        for name, value in context.invocation_metadata() or ():
            if name == REQUEST_ID_HEADER:
                stated = value if isinstance(value, str) else value.decode("ascii", "replace")
    return parse_id(stated, field="request_id") if stated else ""


def _code(status: status_pb2.Status) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == status.code)


async def _abort(context: grpc.aio.ServicerContext[Any, Any], status: status_pb2.Status) -> NoReturn:
    details = (("grpc-status-details-bin", status.SerializeToString()),)
    try:
        await context.abort(_code(status), status.message, details)
    except grpc.aio.InternalError:
        # The client left before it took the status; grpc would log that as a fault.
        raise asyncio.CancelledError from None
    raise AssertionError("abort returned")
