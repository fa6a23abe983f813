"""A client of gRPC that costs little, in a process of its own: HTTP/2 by hand, with calls that are made once.

`grpc.aio` takes as long to ask as to answer, so it would measure itself.
"""

from __future__ import annotations

import os
import selectors
import socket
import ssl
import statistics
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from tests.faults.http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    connect,
    frame,
    preface,
)

_ACK = 1
_HEADER_BYTES = 9
_RECEIVE_BYTES = 1 << 16
_WINDOW_BYTES = 65_535
_UNBOUNDED = (1 << 31) - 1
_INDEXED, _ADDED = 0x80, b"\x40"
_POST, _HTTP, _HTTPS = b"\x83", b"\x86", b"\x87"
_FIRST_DYNAMIC = 62


class Load(msgspec.Struct, frozen=True):
    """What to ask whom: `messages` in turn, with `streams` calls in flight on each connection."""

    address: str
    method: str
    messages: list[bytes]
    connections: int = 1
    streams: int = 1
    seconds: float = 1.0
    files: tuple[str, str, str] | None = None
    """CA, certificate and key, for TLS."""


class Measured(msgspec.Struct, frozen=True):
    """Calls a second, and what they took."""

    rate: float
    p50_ms: float
    p99_ms: float


class Connection:
    """One connection, on which a call begins whenever another ends."""

    def __init__(self, load: Load, next_message: Callable[[], bytes]) -> None:
        self._next_message = next_message
        self._headers = _headers(load)
        self.socket: Any = connect(load.address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if load.files is not None:
            context = ssl.create_default_context(cafile=load.files[0])
            context.load_cert_chain(load.files[1], load.files[2])
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self._received = b""
        self._begun: dict[int, float] = {}
        self._answered: set[int] = set()
        self._next_stream = 1
        self._window = _WINDOW_BYTES
        more = struct.pack(">I", _UNBOUNDED - _WINDOW_BYTES)
        self._sent = [preface(window_bytes=_UNBOUNDED), frame(WINDOW_UPDATE, 0, 0, more)]
        self._waiting: deque[bytes] = deque()
        self.took_s: list[float] = []

    def begin(self, calls: int) -> None:
        """Begin so many calls; `flush` sends them."""
        for _ in range(calls):
            self._waiting.append(self._next_message())
        while self._waiting and self._window >= len(self._waiting[0]):
            message, stream = self._waiting.popleft(), self._next_stream
            self._next_stream += 2
            self._window -= len(message)
            self._begun[stream] = time.perf_counter()
            headers = next(self._headers)
            self._sent += (
                frame(HEADERS, END_HEADERS, stream, headers),
                frame(DATA, END_STREAM, stream, message),
            )

    def flush(self) -> None:
        """Send all that is to be sent."""
        if self._sent:
            self.socket.sendall(b"".join(self._sent))
            self._sent.clear()

    def read(self) -> None:
        """Read what there is, and begin a call for each that has ended. Raises `ConnectionError`."""
        received = self.socket.recv(_RECEIVE_BYTES)
        while isinstance(self.socket, ssl.SSLSocket) and (pending := self.socket.pending()):
            received += self.socket.recv(pending)
        if not received:
            raise ConnectionError("the server closed the connection")
        received = self._received + received
        start, ended = 0, 0
        while len(received) - start >= _HEADER_BYTES:
            head = int.from_bytes(received[start : start + 5], "big")
            end = start + _HEADER_BYTES + (head >> 16)
            if end > len(received):
                break
            stream = int.from_bytes(received[start + 5 : start + _HEADER_BYTES], "big")
            ended += self._take(head >> 8 & 0xFF, head & 0xFF, stream, received[start + _HEADER_BYTES : end])
            start = end
        self._received = received[start:]
        self.begin(ended)
        self.flush()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> bool:
        """Take a frame; return whether it ends a call."""
        if kind == DATA:
            self._answered.add(stream)
        elif kind == PING and not flags & _ACK:
            self._sent.append(frame(PING, _ACK, 0, payload))
        elif kind == SETTINGS and not flags & _ACK:
            self._sent.append(frame(SETTINGS, _ACK, 0))
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind in (RST_STREAM, GOAWAY):
            raise ConnectionError(f"the server ended stream {stream}")
        if kind not in (DATA, HEADERS) or not flags & END_STREAM:
            return False
        if stream not in self._answered:  # an error has no message
            raise ConnectionError("a call failed")
        self._answered.remove(stream)
        self.took_s.append(time.perf_counter() - self._begun.pop(stream))
        return True


def _headers(load: Load) -> Iterator[bytes]:
    """The headers of each call: the first fills the table that the others refer to. Source: RFC 7541, 6."""
    named = {b":path": load.method, b":authority": "localhost", b"te": "trailers"}
    named[b"content-type"] = "application/grpc"
    start = _POST + (_HTTP if load.files is None else _HTTPS)
    yield start + b"".join(
        _ADDED + bytes([len(name)]) + name + bytes([len(value)]) + value.encode()
        for name, value in named.items()
    )
    known = start + bytes(_INDEXED | _FIRST_DYNAMIC + place for place in reversed(range(len(named))))
    while True:
        yield known


def measure(load: Load) -> Measured:
    """Ask for a while. Raises `ConnectionError` when a call fails."""
    place = 0

    def next_message() -> bytes:
        nonlocal place
        place += 1
        message = load.messages[place % len(load.messages)]
        return b"\0" + len(message).to_bytes(4, "big") + message

    connections = [Connection(load, next_message) for _ in range(load.connections)]
    with selectors.DefaultSelector() as selector:
        for each in connections:
            selector.register(each.socket, selectors.EVENT_READ, each)
            each.begin(load.streams)
            each.flush()
        begun = time.perf_counter()
        while (elapsed_s := time.perf_counter() - begun) < load.seconds:
            for key, _ in selector.select(load.seconds):
                key.data.read()
    took_ms = sorted(took_s * 1e3 for each in connections for took_s in each.took_s)
    for each in connections:
        each.socket.close()
    percentiles = statistics.quantiles(took_ms, n=100)
    return Measured(len(took_ms) / elapsed_s, percentiles[49], percentiles[98])


if __name__ == "__main__":
    os.sched_setaffinity(0, {(os.cpu_count() or 1) - 1})
    print(
        msgspec.json.encode(
            measure(msgspec.msgpack.decode(Path(sys.argv[1]).read_bytes(), type=Load))
        ).decode()
    )
