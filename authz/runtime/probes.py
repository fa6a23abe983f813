"""Plain HTTP for monitoring: `/livez`, `/readyz` and `/metrics`, and nothing else.

It works while the port of the API demands certificates, and tells nothing of the directory. It only reads.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socket import AF_INET6
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import msgspec
import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from authz.domain.errors import invalid

_TIMEOUT_S = 10
_SOFTWARE = "authz"
"""The header `Server`, which the library would send with its version and that of Python."""

log = structlog.get_logger()


class Probes(msgspec.Struct, frozen=True):
    """Why a process is not alive, or not ready; empty when it is."""

    registry: CollectorRegistry
    not_alive: Callable[[], str]
    not_ready: Callable[[], str]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128
    """With the library's 5, the kernel lets a probe wait for seconds while others connect."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: a client was silent or has left. The library would print a traceback."""


class _ServerOfIpv6(_Server):
    address_family = AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _TIMEOUT_S
    """A client that sends nothing holds a thread no longer."""

    def version_string(self) -> str:
        """What is told of the program to a client whose request cannot be read."""
        return _SOFTWARE

    def get_stderr(self) -> io.StringIO:
        """Where the library prints why it could not send an answer, which is as little a fault."""
        return io.StringIO()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  its name in the library
        """Probes come every second: they leave no lines."""


@contextmanager
def serving_probes(address: str, probes: Probes) -> Iterator[None]:
    """Serve at `host:port` while the block lasts, in a thread; do nothing for an empty address.

    Raises `InvalidArgumentError` for an address that cannot be used.
    """
    if not address:
        yield
        return
    server = _listen(address, _app(probes))
    thread = Thread(target=server.serve_forever, name="probes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def require_metrics_address(address: str) -> None:
    """Raise `InvalidArgumentError` for an address that `serving_probes` could not use now."""
    if address:
        _listen(address, lambda *_: ()).server_close()


def _listen(address: str, app: Callable[..., Iterable[bytes]]) -> WSGIServer:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    server_class = _ServerOfIpv6 if ":" in host else _Server
    try:
        return make_server(host, int(port), app, server_class, _Handler)
    except (OSError, ValueError) as error:
        raise invalid(
            "AUTHZ_METRICS_ADDRESS",
            f"cannot listen at `{address}` for monitoring: {error};"
            " set AUTHZ_METRICS_ADDRESS to a free host:port of this machine",
        ) from None


def _app(probes: Probes) -> Callable[..., Iterable[bytes]]:
    metrics = make_wsgi_app(probes.registry)
    causes = {"/livez": probes.not_alive, "/readyz": probes.not_ready}

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        def start_response(status: str, headers: list[tuple[str, str]]) -> None:
            start(status, [*headers, ("Server", _SOFTWARE)])

        path, is_read = environ["PATH_INFO"], environ["REQUEST_METHOD"] in ("GET", "HEAD")
        status, text = "404 Not Found", "not found"
        try:
            if is_read and path == "/metrics":
                found: Iterable[bytes] = metrics(environ, start_response)
                return found
            if is_read and path in causes:
                cause = causes[path]()
                status, text = ("503 Service Unavailable", cause) if cause else ("200 OK", "ok")
        except Exception:
            log.exception("probe failed", path=path)
            status, text = "500 Internal Server Error", "failed; the log says why"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [f"{text}\n".encode()]

    return app
