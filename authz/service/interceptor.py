"""Around every call: a request id, a log line, a bound on calls in flight, and errors as statuses.

The only place that aborts a call.
"""

from __future__ import annotations

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
    """Wraps the calls of this service's own methods; health and reflection pass as they are."""

    def __init__(self, *, max_concurrent_calls: int) -> None:
        self._max = max_concurrent_calls
        self._in_flight = 0
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
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(self._wrap(method, handler.stream_unary), **serialize)
        return grpc.unary_unary_rpc_method_handler(self._wrap(method, handler.unary_unary), **serialize)

    def _wrap(self, method: str, servicing: Any) -> Any:
        async def wrapped(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            return await self._serve(method, servicing, request, context)

        return wrapped

    async def _serve(
        self, method: str, servicing: Servicing, request: Any, context: grpc.aio.ServicerContext[Any, Any]
    ) -> Any:
        started = time.perf_counter()
        request_id = secrets.token_hex(8)
        code = grpc.StatusCode.CANCELLED  # what a call is that ends without an answer or an error
        self._in_flight += 1
        try:
            request_id = _stated_request_id(request, context) or request_id
            request_id_var.set(request_id)
            self._shed_excess()
            response = await servicing(request, context)
        except AuthzError as error:
            status = status_of(error)
            code = _code(status)
            await _abort(context, status)
        except Exception:
            # Nothing that fails may allow, and no text of a driver may reach a client.
            code = grpc.StatusCode.INTERNAL
            log.exception("call failed", method=method, request_id=request_id)
            await _abort(context, internal_status(request_id))
        else:
            code = grpc.StatusCode.OK
            return response
        finally:
            self._in_flight -= 1
            elapsed_ms = round((time.perf_counter() - started) * 1000, 3)
            log.info("call", method=method, code=code.name, request_id=request_id, elapsed_ms=elapsed_ms)

    def _shed_excess(self) -> None:
        if self._in_flight > self._max:
            raise OverloadedError(
                f"more than {self._max} calls in flight; try again",
                retry_after_s=_RETRY_AFTER_S,
                limit=str(self._max),
            )


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
    await context.abort(_code(status), status.message, details)
    raise AssertionError("abort returned")
