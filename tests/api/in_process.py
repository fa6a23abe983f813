"""A face without gRPC: JSON in, JSON or an error out, as an HTTP face would have it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

from google.protobuf import json_format

from authz.access.authentication import Transport
from authz.access.principal import UNAUTHENTICATED, Principal
from authz.api.endpoints import Endpoint
from authz.api.pipeline import Pipeline
from authz.domain.ids import Subject, SubjectType


class Request:
    """What an in-process caller says of itself: a `Transport`."""

    def __init__(self, headers: Mapping[str, str], certificate: str = "", connection: str = "") -> None:
        self.headers = headers
        self._connection = connection
        self._releases: list[Callable[[], None]] = []
        self._certificate = certificate
        self.headers_read: list[str] = []

    def certificate(self) -> bytes:
        return self._certificate.encode()

    def connection(self) -> str:
        return self._connection

    def when_sent(self, release: Callable[[], None]) -> None:
        self._releases.append(release)

    def send(self) -> None:
        """Say that the answer was sent."""
        for release in self._releases:
            release()

    def header(self, name: str) -> str:
        self.headers_read.append(name)
        return self.headers.get(name, "")

    def header_values(self, name: str) -> tuple[str, ...]:
        self.headers_read.append(name)
        return (self.headers[name],) if name in self.headers else ()


class ByNameAuthenticator:
    """Takes the certificate for the id of a caller; without one, nobody calls."""

    def authenticate(self, transport: Transport) -> Principal:
        name = transport.certificate().decode()
        return Principal(Subject(SubjectType.SERVICE, name)) if name else UNAUTHENTICATED


class InProcessFace:
    """Makes a `Call` of each request and hands it to the pipeline; raises what the pipeline raises."""

    def __init__(self, pipeline: Pipeline, endpoints: Iterable[Endpoint]) -> None:
        self._pipeline = pipeline
        self._endpoints = {endpoint.method.name.rpartition("/")[2]: endpoint for endpoint in endpoints}

    async def ask(
        self,
        method: str,
        body: dict[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
        certificate: str = "",
        timeout_s: float | None = None,
        send: Callable[[Any], Awaitable[None]] | None = None,
    ) -> Any:
        """The answer as JSON; None for a method that streams its answers to `send`."""
        endpoint = self._endpoints[method]
        message: Any = json_format.ParseDict(body, endpoint.request_type())
        run = partial(endpoint.run, send=send) if endpoint.server_streams else endpoint.run
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        transport = Request(headers or {}, certificate)
        call = endpoint.call(message, transport, deadline)
        request = _once(message) if endpoint.client_streams else message
        try:
            answer = await self._pipeline.serve(call, run, request)
        finally:
            transport.send()
        return None if endpoint.server_streams else json_format.MessageToDict(answer)


async def _once(message: Any) -> AsyncIterator[Any]:
    yield message
