"""The form of gRPC on HTTP/2: prefixed messages, timeouts, statuses.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import asyncio
import re
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeAlias
from urllib.parse import quote

import grpc

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
        """The trailers that say so."""
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


async def only_message(receive: Receive, encoding: bytes | None, *, max_message_bytes: int) -> bytes:
    """The message of a request that has one. Raises as `messages`."""
    first = await receive()
    body = first.get("body", b"")
    size_bytes = len(body) - PREFIX_BYTES
    if (
        0 <= size_bytes <= max_message_bytes
        and not first["more_body"]
        and body.startswith(_PLAIN)
        and int.from_bytes(body[1:PREFIX_BYTES], "big") == size_bytes
    ):
        return bytes(body[PREFIX_BYTES:])
    events = [first]

    async def receive_again() -> Event:
        return events.pop() if events else await receive()

    arriving = messages(receive_again, encoding, max_message_bytes=max_message_bytes)
    found = [message async for message in arriving]
    if len(found) != 1:
        raise StatusError(
            grpc.StatusCode.INTERNAL, f"the request has {len(found)} messages; this method takes one"
        )
    return found[0]


async def messages(
    receive: Receive, encoding: bytes | None, *, max_message_bytes: int
) -> AsyncIterator[bytes]:
    """The messages of a request, as they arrive.

    Raises `StatusError` for a message that is too large, before it has arrived, and for one that cannot be
    read. Cancels the caller when the client leaves.
    """
    held, more = b"", True
    while True:
        while len(held) >= PREFIX_BYTES:
            size_bytes = int.from_bytes(held[1:PREFIX_BYTES], "big")
            _require_size(size_bytes, max_message_bytes)
            end = PREFIX_BYTES + size_bytes
            if len(held) < end:
                break
            yield _decoded(held[0], held[PREFIX_BYTES:end], encoding, max_message_bytes)
            held = held[end:]
        if not more:
            break
        held, more = await _receive_at_least(_missing_bytes(held), held, receive)
    if held:
        raise StatusError(grpc.StatusCode.INTERNAL, "the request ends within a message")


def _missing_bytes(held: bytes) -> int:
    if len(held) < PREFIX_BYTES:
        return 1
    return PREFIX_BYTES + int.from_bytes(held[1:PREFIX_BYTES], "big") - len(held)


async def _receive_at_least(size_bytes: int, held: bytes, receive: Receive) -> tuple[bytes, bool]:
    """What is held with so many bytes more, or all that there are; and whether there may be more."""
    parts, more = [held], True
    while more and size_bytes > 0:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise asyncio.CancelledError
        part, more = event["body"], event["more_body"]
        parts.append(part)
        size_bytes -= len(part)
    return b"".join(parts), more


def _require_size(size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        raise StatusError(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"the message has {size_bytes} bytes, and the server takes at most {max_bytes};"
            " send less at once (an operator can change AUTHZ_MAX_MESSAGE_BYTES)",
        )


def _decoded(flag: int, message: bytes, encoding: bytes | None, max_bytes: int) -> bytes:
    if not flag:
        return message
    if flag != 1 or encoding not in _ACCEPTED_ENCODINGS:
        raise StatusError(
            grpc.StatusCode.UNIMPLEMENTED,
            f"the server cannot read the encoding `{(encoding or b'').decode('latin-1')}`; use gzip or none",
        )
    decompressor = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        found = decompressor.decompress(message, max_bytes + 1)
    except zlib.error:
        found = b""
    _require_size(len(found), max_bytes)
    if not decompressor.eof or decompressor.unused_data:
        raise StatusError(grpc.StatusCode.INTERNAL, "a compressed message cannot be read")
    return found


def timeout_s(value: bytes) -> float:
    """The seconds that a `grpc-timeout` states. Raises `StatusError`."""
    found = _TIMEOUT.fullmatch(value)
    if found is None:
        raise StatusError(grpc.StatusCode.INTERNAL, "the header `grpc-timeout` cannot be read")
    digits, unit = found.groups()
    return int(digits) * _TIMEOUT_UNITS_S[unit]
