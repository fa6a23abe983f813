"""The form of gRPC on HTTP/2: prefixed messages, timeouts, statuses.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import asyncio
import re
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

import grpc

from authz.wire.limits import SMALL_BYTES

Event: TypeAlias = Mapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

PREFIX_BYTES = 5
_PLAIN = b"\0"
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_TIMEOUT_UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_NOT_ENCODED = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}~"
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_ACCEPTED_ENCODINGS = (b"gzip", b"deflate")


class StatusError(Exception):
    """Ends a call with a status other than OK."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.trailing_metadata = trailing_metadata

    def trailers(self) -> Headers:
        """The trailers with this status."""
        trailers = [
            (b"grpc-status", b"%d" % self.code.value[0]),
            (b"grpc-message", quote(self.message, safe=_NOT_ENCODED).encode()),
        ]
        for name, value in self.trailing_metadata:
            encoded = value.encode() if isinstance(value, str) else b64encode(value).rstrip(b"=")
            trailers.append((name.encode(), encoded))
        return trailers


def prefixed(message: bytes) -> bytes:
    """A message as it is sent."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class Compressed(NamedTuple):
    """A message as it arrived."""

    content: bytes
    max_message_bytes: int

    def decompressed(self, max_bytes: int) -> bytes:
        """The message; of one that is larger than `max_bytes`, only the first `max_bytes + 1` bytes.

        Raises `StatusError` for a message that cannot be read, or is larger than the server takes.
        """
        decompressor = zlib.decompressobj(_GZIP_OR_ZLIB)
        try:
            found = decompressor.decompress(self.content, min(max_bytes, self.max_message_bytes) + 1)
        except zlib.error:
            found = b""
        _require_size(len(found), self.max_message_bytes)
        if len(found) <= max_bytes and (not decompressor.eof or decompressor.unused_data):
            raise StatusError(grpc.StatusCode.INTERNAL, "a compressed message cannot be read")
        return found


def decompressed(message: bytes | Compressed, max_bytes: int | None = None) -> bytes:
    """As `Compressed.decompressed`. Without `max_bytes`, a message of any size that the server takes."""
    if isinstance(message, bytes):
        return message
    return message.decompressed(message.max_message_bytes if max_bytes is None else max_bytes)


def anybody() -> None:
    """Allows everybody to send a message that is compressed or large."""


async def only_message(
    receive: Receive,
    encoding: bytes | None,
    *,
    max_message_bytes: int,
    before_large: Callable[[], None] = anybody,
) -> bytes | Compressed:
    """The message of a request that has one.

    Raises as `messages`, and at the first byte of a second message. Before it receives a message that is
    compressed or larger than `SMALL_BYTES`, raises what `before_large` does.
    """
    reader = _Reader(receive, max_message_bytes, before_large)
    if not await reader.has_more():
        raise StatusError(grpc.StatusCode.INTERNAL, "the request has no message; this method takes one")
    found = await reader.message(encoding)
    if await reader.has_more():
        raise StatusError(
            grpc.StatusCode.INTERNAL, "the request has more than one message; this method takes one"
        )
    return found


async def messages(
    receive: Receive, encoding: bytes | None, *, max_message_bytes: int
) -> AsyncIterator[bytes | Compressed]:
    """The messages of a request, as they arrive.

    Raises `StatusError` for a message that is too large, before it has arrived, and for one that cannot be
    read. Cancels the caller when the client leaves.
    """
    reader = _Reader(receive, max_message_bytes)
    while await reader.has_more():
        yield await reader.message(encoding)


class _Reader:
    """Reads the messages of one request. Its methods raise as `messages`."""

    def __init__(
        self, receive: Receive, max_message_bytes: int, before_large: Callable[[], None] = anybody
    ) -> None:
        self._receive = receive
        self._before_large = before_large
        self._max_message_bytes = max_message_bytes
        self._held, self._more = b"", True

    async def has_more(self) -> bool:
        """Whether more of the request follows; it may end within a message."""
        await self._hold(1)
        return bool(self._held)

    async def message(self, encoding: bytes | None) -> bytes | Compressed:
        """The next message."""
        await self._hold(PREFIX_BYTES)
        size_bytes = int.from_bytes(self._held[1:PREFIX_BYTES], "big")
        _require_size(size_bytes, self._max_message_bytes)
        if size_bytes > SMALL_BYTES or not self._held.startswith(_PLAIN):
            self._before_large()
        end = PREFIX_BYTES + size_bytes
        await self._hold(end)
        if len(self._held) < end:
            raise StatusError(grpc.StatusCode.INTERNAL, "the request ends within a message")
        flag, content = self._held[0], self._held[PREFIX_BYTES:end]
        self._held = self._held[end:]
        if not flag:
            return content
        if flag != 1 or encoding not in _ACCEPTED_ENCODINGS:
            stated = (encoding or b"").decode("latin-1")
            raise StatusError(
                grpc.StatusCode.UNIMPLEMENTED,
                f"the server cannot read the encoding `{stated}`; use gzip or none",
            )
        return Compressed(content, self._max_message_bytes)

    async def _hold(self, size_bytes: int) -> None:
        """Receive until so many bytes are held, or the request ends."""
        parts, missing_bytes = [self._held], size_bytes - len(self._held)
        while self._more and missing_bytes > 0:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise asyncio.CancelledError
            part, self._more = event["body"], event["more_body"]
            parts.append(part)
            missing_bytes -= len(part)
        self._held = b"".join(parts)


def _require_size(size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        raise StatusError(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"the message has {size_bytes} bytes, and the server takes at most {max_bytes};"
            " send less at once (an operator can change AUTHZ_MAX_MESSAGE_BYTES)",
        )


def timeout_s(value: bytes) -> float:
    """The seconds that a `grpc-timeout` states. Raises `StatusError`."""
    found = _TIMEOUT.fullmatch(value)
    if found is None:
        raise StatusError(grpc.StatusCode.INTERNAL, "the header `grpc-timeout` cannot be read")
    digits, unit = found.groups()
    return int(digits) * _TIMEOUT_UNITS_S[unit]
