"""A pooler in front of PostgreSQL that gives its one connection to one client after the other, as PgBouncer
does with `pool_mode = transaction`, and knows nothing of prepared statements.

Source: https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import urlsplit

from psycopg.conninfo import conninfo_to_dict

_VERSION = 3 << 16
_IDLE = b"I"
"""Of `ReadyForQuery`: outside a transaction."""


def _exactly(peer: socket.socket, size: int) -> bytes:
    found = peer.recv(size, socket.MSG_WAITALL)
    if len(found) < size:
        raise ConnectionResetError
    return found


def _message(peer: socket.socket) -> tuple[bytes, bytes]:
    """The kind of the next message, and all of it."""
    head = _exactly(peer, 5)
    (size,) = struct.unpack("!I", head[1:])
    return head[:1], head + _exactly(peer, size - 4)


def _until_ready(server: socket.socket) -> tuple[bytes, bytes]:
    """What the server sends until it waits for a client, and the state of its transaction."""
    sent = b""
    while True:
        kind, message = _message(server)
        sent += message
        if kind == b"Z":
            return sent, message[-1:]


class _Pooler:
    def __init__(self, server: socket.socket, user: str, database: str) -> None:
        self._server, self._turn = server, threading.Lock()
        body = b"".join(f"{each}\0".encode() for each in ("user", user, "database", database, ""))
        server.sendall(struct.pack("!II", len(body) + 8, _VERSION) + body)
        self._greeting, _ = _until_ready(server)

    def serve(self, client: socket.socket) -> None:
        """Answer one client until it leaves."""
        is_served = False
        with client, suppress(OSError):
            while True:
                size, code = struct.unpack("!II", _exactly(client, 8))
                _exactly(client, size - 8)
                if code == _VERSION:
                    break
                client.sendall(b"N")  # neither TLS nor GSSAPI
            client.sendall(self._greeting)
            while (received := _message(client))[0] != b"X":
                if not is_served:
                    is_served = self._turn.acquire()
                self._server.sendall(received[1])
                if received[0] in b"QS":
                    answer, state = _until_ready(self._server)
                    client.sendall(answer)
                    if state == _IDLE:
                        self._turn.release()
                        is_served = False


@contextmanager
def pooled(url: str) -> Iterator[str]:
    """The URL of a pooler in front of the PostgreSQL of a URL, at a Unix socket."""
    options = conninfo_to_dict(url)
    with (
        closing(socket.socket(socket.AF_UNIX)) as server,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        server.connect(f"{options['host']}/.s.PGSQL.{options.get('port') or 5432}")
        database = urlsplit(url).path[1:]
        pooler = _Pooler(server, str(options["user"]), database)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=pooler.serve, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"postgresql://{options['user']}@127.0.0.1:{listener.getsockname()[1]}/{database}?sslmode=disable"
        listener.shutdown(socket.SHUT_RDWR)
