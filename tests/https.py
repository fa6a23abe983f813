"""An https address on this machine, for tests of what the service fetches and posts."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BufferedIOBase
from pathlib import Path

import pytest

from tests.access.certificates import server_certificate

_POLL_S = 0.01
"""How soon a server notices that it is to end."""


class Address:
    """Answers a GET with `content`, keeps what is posted, and gives each its `status` and `location`; with
    `answer`, that writes the answer instead, header and all."""

    def __init__(self) -> None:
        self.url = ""
        self.status, self.content, self.location = 200, b"", ""
        self.answer: Callable[[BufferedIOBase], object] | None = None
        self.gets = 0
        """How many it has answered."""
        self.posted: list[str] = []
        """What was posted while `status` was 200."""


@contextmanager
def https_address(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    """Serve an address whose certificate this process trusts while the block runs."""
    address = Address()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(address.content)
            address.gets += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if address.status == 200 and address.answer is None:
                address.posted.append(body.decode())
            self._answer(b"")

        def _answer(self, content: bytes) -> None:
            if address.answer is not None:
                with suppress(OSError):  # the client may leave
                    address.answer(self.wfile)
                return
            self.send_response(address.status)
            if address.location:
                self.send_header("location", address.location)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    certificate = server_certificate(folder)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        address.url = f"https://localhost:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever, args=(_POLL_S,), daemon=True)
        thread.start()
        yield address
        server.shutdown()
        thread.join()
