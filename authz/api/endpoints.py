"""The methods of the services of `authz.v1`, for any face that speaks their messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import msgspec
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from authz.access.authentication import Transport
from authz.api.call import Call, Method
from authz.api.methods import METHODS
from authz.domain.consistency import MINIMIZE_LATENCY
from authz.wire.limits import RequestLimits
from authz.wire.values import parse_consistency


class Endpoint(msgspec.Struct, frozen=True, eq=False):
    """A method with its request message and the servicer's method that answers it.

    `run` takes the request and the call; an endpoint whose `client_streams` takes an async iterator of
    requests; one whose `server_streams` also takes `send`, an async function that it calls with each answer,
    and returns nothing.
    """

    method: Method
    request_type: type[Message]
    limits: RequestLimits
    run: Callable[..., Awaitable[Any]]
    client_streams: bool
    server_streams: bool
    has_request_id: bool
    has_consistency: bool

    def parse(self, received: bytes) -> Message:
        """The request in these bytes. Raises `InvalidArgumentError` for bytes that are no such message,
        and before it parses them, for a message that is too large."""
        self.limits.require_parsable(received)
        try:
            return self.request_type.FromString(received)
        except DecodeError:
            raise self.limits.unreadable() from None

    def call(self, request: Any, transport: Transport, deadline: float | None) -> Call:
        """The call that a request makes. Never raises: what is malformed is for the pipeline to answer."""
        consistent = self.has_consistency and request.HasField("consistency")
        return Call(
            method=self.method,
            transport=transport,
            request_id=request.request_id if self.has_request_id else "",
            deadline=deadline,
            consistency=parse_consistency(request.consistency) if consistent else MINIMIZE_LATENCY,
        )


class Servicer(Protocol):
    """Answers the calls of one service: has a method of the same name for each method of the service."""

    service: ServiceDescriptor


def endpoints_of(servicer: Servicer) -> tuple[Endpoint, ...]:
    """An endpoint for each method of a service."""
    return tuple(_endpoint(method, getattr(servicer, method.name)) for method in servicer.service.methods)


def _endpoint(method: MethodDescriptor, run: Callable[..., Awaitable[Any]]) -> Endpoint:
    service, fields = method.containing_service.full_name, method.input_type.fields_by_name
    limits = RequestLimits(method.input_type)
    if limits.bounds_items:
        run = _with_each_bounded(limits, run) if method.client_streaming else _bounded(limits, run)
    return Endpoint(
        method=Method(
            f"/{service}/{method.name}", *METHODS[method.name], server_streams=method.server_streaming
        ),
        request_type=message_factory.GetMessageClass(method.input_type),
        limits=limits,
        run=run,
        client_streams=method.client_streaming,
        server_streams=method.server_streaming,
        has_request_id="request_id" in fields and not method.client_streaming,
        has_consistency="consistency" in fields and not method.client_streaming,
    )


def _bounded(limits: RequestLimits, run: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Count the items of a request before it is run, whichever face has parsed it."""

    async def run_bounded(request: Any, call: Call, **given: Any) -> Any:
        limits.require_items(request)
        return await run(request, call, **given)

    return run_bounded


def _with_each_bounded(
    limits: RequestLimits, run: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    async def bounded(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            limits.require_items(request)
            yield request

    async def run_bounded(requests: AsyncIterator[Any], call: Call) -> Any:
        return await run(bounded(requests), call)

    return run_bounded
