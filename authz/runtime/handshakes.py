"""Counts the TLS handshakes that Envoy refuses, and logs some: a scan is ten lines a minute.

Envoy writes its access log of them into a named pipe, which a thread of the application reads.
Source: https://www.envoyproxy.io/docs/envoy/v1.39.0/configuration/observability/access_log/usage
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import structlog

from authz.telemetry.metrics import REFUSED_HANDSHAKES

log = structlog.get_logger()

_BURST = 10
_INTERVAL_S = 6.0
_TYPES = "type.googleapis.com/envoy.extensions.access_loggers."
_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_certificate",
    "certificate_has_expired": "expired_certificate",
    "CERTIFICATE_VERIFY_FAILED": "untrusted_certificate",
}
"""The reason by a part of the cause that Envoy gives; the first that fits."""
_OTHER = "other"


def create_pipe(path: Path) -> None:
    """Make the pipe, and keep it open in this process and in the Envoy that it becomes: otherwise Envoy would
    wait for a reader, which it starts itself."""
    os.mkfifo(path, 0o600)
    os.set_inheritable(os.open(path, os.O_RDWR), True)


def access_log(path: Path) -> dict[str, Any]:
    """Envoy's configuration to write refused handshakes into the pipe."""
    failed = {
        "@type": _TYPES + "filters.cel.v3.ExpressionFilter",
        # A connection that a client cut off has failed, too.
        "expression": "connection.transport_failure_reason != ''"
        " && !connection.transport_failure_reason.contains('system library')",
    }
    line = {
        "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "cause": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "filter": {"extension_filter": {"name": "failed", "typed_config": failed}},
        "typed_config": {
            "@type": _TYPES + "file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"json_format": line},
        },
    }


def report_refused(path: Path) -> None:
    """Log and count what Envoy writes into the pipe, in a thread, until the process ends."""
    for reason in (*_REASONS.values(), _OTHER):
        REFUSED_HANDSHAKES.labels(reason)
    threading.Thread(target=_report_forever, args=(path,), name="handshakes", daemon=True).start()


def _report_forever(path: Path) -> None:
    due_s = 0.0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                refused = json.loads(line)
            except ValueError:
                # If the thread ended, the pipe would fill, and Envoy would wait for it.
                log.exception("refused TLS handshake not counted")
                continue
            found = (reason for part, reason in _REASONS.items() if part in refused["cause"])
            REFUSED_HANDSHAKES.labels(next(found, _OTHER)).inc()
            due_s = max(due_s, time.monotonic() - (_BURST - 1) * _INTERVAL_S)
            if due_s <= time.monotonic():
                due_s += _INTERVAL_S
                log.warning("TLS handshake refused", **refused)
