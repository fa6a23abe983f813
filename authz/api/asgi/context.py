"""One call of a gRPC client, as ASGI gives it: what it sends, and what is sent to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias, TypeVar
from urllib.parse import unquote_to_bytes

import grpc

from authz.access.authentication import Transport
from authz.api.asgi.framing import (
    Compressed,
    Event,
    Headers,
    Receive,
    StatusError,
    decompressed,
    messages,
    only_message,
    prefixed,
    timeout_s,
)

T = TypeVar("T")
Scope: TypeAlias = Mapping[str, Any]
Send: TypeAlias = Callable[[Event], Awaitable[None]]

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
_MAX_CACHED = 1024
UNARY_PRESENCE_INTERVAL_S = 1.0
"""How soon a call with one answer ends after its client has left. It begins to look after as long: beginning
after a tenth of a second quadrupled the processor time of a check while thousands were in flight."""
MAX_SILENCE_S = 10.0
"""Seconds within a request without a part of it. Envoy's limit for headers is as long."""


class AsgiContext(Transport):
    """One call, with what the adapter uses of `grpc.aio.ServicerContext`."""

    __slots__ = (
        "_begun",
        "_deadline",
        "_failure",
        "_headers",
        "_leaving",
        "_named",
        "_receive",
        "_releases",
        "_send",
        "_task",
        "_timer",
        "client",
        "has_request",
        "serialize",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.client: tuple[str, int] | None = scope["client"]
        self.has_request = False
        """Whether the only message has been read."""
        self.serialize: Callable[[Any], bytes] = bytes
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._leaving: asyncio.Task[None] | None = None
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

    def begin(self) -> None:
        """From now on, cancel the task of the call at its deadline, or soon after the client has left. Raises
        `StatusError` for a deadline that cannot be read."""
        self._task = asyncio.current_task()
        stated = self._named.get(b"grpc-timeout")
        loop = asyncio.get_running_loop()
        if stated is not None:
            left_s = timeout_s(stated)
            self._deadline = time.monotonic() + left_s
            if left_s <= UNARY_PRESENCE_INTERVAL_S:
                self._timer = loop.call_later(left_s, self._expire)
                return
        # Nearly every call ends before that, and pays for one timer only.
        self._timer = loop.call_later(UNARY_PRESENCE_INTERVAL_S, self.watch_client, UNARY_PRESENCE_INTERVAL_S)

    def certificate(self) -> bytes:
        stated = self._named.get(_CERTIFICATE_HEADER)
        return b"" if stated is None else _certificate(stated)

    def connection(self) -> str:
        return f"ip:{self.client[0]}:{self.client[1]}" if self.client and self.client[1] else ""

    def header(self, name: str) -> str:
        return self._named.get(name.encode(), b"").decode("latin-1")

    def header_values(self, name: str) -> tuple[str, ...]:
        wanted = name.encode()
        return tuple(value.decode("latin-1") for each, value in self._headers if each == wanted)

    def when_sent(self, release: Callable[[], None]) -> None:
        self._releases.append(release)

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return None if self._deadline is None else self._deadline - time.monotonic()

    def done(self) -> None:
        """Call what waits for the end of the call."""
        if self._timer is not None:
            self._timer.cancel()
        if self._leaving is not None:
            self._leaving.cancel()
        for release in self._releases:
            release()

    def watch_client(self, interval_s: float) -> None:
        """Look from now on, every so many seconds, whether the client has left; gRPC does that by itself."""
        if self._timer is not None:
            self._timer.cancel()
        left_s = self.time_remaining()
        if left_s is not None:
            self._timer = asyncio.get_running_loop().call_later(left_s, self._expire)
        self._leaving = asyncio.ensure_future(self._cancel_when_client_leaves(interval_s))

    async def _cancel_when_client_leaves(self, interval_s: float) -> None:
        """Cancel the call once the client has left. While the request is read, its reader sees that."""
        while not self.has_request or not await self._has_left():  # noqa: ASYNC110  neither waits
            await asyncio.sleep(interval_s)
        self._cancel()

    def _expire(self) -> None:
        """A timer of the event loop may be a millisecond early, so the time does not tell afterwards why the
        call was cancelled."""
        self._cancel(StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed"))

    def _cancel(self, failure: StatusError | None = None) -> None:
        """Cancel the call, and send the client this failure if it may still read it."""
        self._failure = failure
        assert self._task is not None  # noqa: S101  the server runs each call in one
        self._task.cancel()

    @property
    def failure(self) -> StatusError | None:
        """Why the server cancels the call; None if it does not."""
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
            self._receive_in_time, encoding, max_message_bytes=max_message_bytes, before_large=before_large
        )

    async def _receive_in_time(self) -> Event:
        """Receive, or cancel the call of a client that is silent within its request: before that has arrived,
        no limit counts the call."""
        timer = asyncio.get_running_loop().call_later(MAX_SILENCE_S, self._end_silence)
        try:
            return await self._receive()
        finally:
            timer.cancel()

    def _end_silence(self) -> None:
        text = f"the client has sent no more of its request for {MAX_SILENCE_S:g} s; call again"
        self._cancel(StatusError(grpc.StatusCode.UNAVAILABLE, text))

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
        except OSError as error:
            # The server raises one object for every client that has left. Each time, Python adds this call to
            # its traceback, and would keep it for as long as the process runs.
            error.__traceback__ = None
            raise asyncio.CancelledError from None

    async def _has_left(self) -> bool:
        return bool((await self._receive())["type"] == "http.disconnect")


def _body(body: bytes, *, more: bool = False) -> Event:
    return {"type": "http.response.body", "body": body, "more_body": more}


@lru_cache(_MAX_CACHED)
def _certificate(stated: bytes) -> bytes:
    """The certificate as PEM. Source: Envoy's documentation of `x-forwarded-client-cert`."""
    return unquote_to_bytes(stated.partition(b'Cert="')[2].partition(b'"')[0])
