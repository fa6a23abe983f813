"""A collector of OpenTelemetry on this machine: it takes traces and log records by OTLP over HTTP."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

_POLL_S = 0.01


class Collector:
    """What was sent while `status` was 200; with another status, nothing is taken."""

    def __init__(self) -> None:
        self.address = ""
        self.status = 200
        self.refused = 0
        self.spans: list[ResourceSpans] = []
        self.logs: list[ResourceLogs] = []

    @property
    def records(self) -> list[LogRecord]:
        """The log records, in the order in which they came."""
        return [record for each in self.logs for scope in each.scope_logs for record in scope.log_records]

    def take(self, path: str, body: bytes) -> None:
        """Take a request."""
        if self.status != 200:
            self.refused += 1
        elif path == "/v1/traces":
            self.spans += ExportTraceServiceRequest.FromString(body).resource_spans
        else:
            assert path == "/v1/logs"
            self.logs += ExportLogsServiceRequest.FromString(body).resource_logs


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector while the block runs."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            collector.take(self.path, body)
            self.send_response(collector.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(_POLL_S,), daemon=True).start()
        yield collector
        server.shutdown()
