"""Logs: JSON lines on standard error, from the service and from its libraries.

A thread writes the lines, so that no call waits for the reader of standard error. Lines that find its queue
full are lost and counted; another line says how many, once the reader reads again.

Above level debug, no line names a person as `user:<id>`: no erasure reaches lines that were collected. The
request id finds the entry in the change log or the decision log.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from authz.domain.mentions import without_people
from authz.telemetry.background import BackgroundWriter, pieces_of
from authz.telemetry.metrics import LOG_LINES_LOST

_MAX_QUEUED_LINES = 4096
_FLUSH_TIMEOUT_S = 1.0
_RETRY_S = 0.05

log = structlog.get_logger()


class LineWriter:
    """Writes lines to standard error in a thread of its own. `write` neither waits nor raises."""

    def __init__(self) -> None:
        self._lines = BackgroundWriter[bytes](
            "log", self._write_lines, max_items=_MAX_QUEUED_LINES, on_loss=LOG_LINES_LOST.inc
        )
        self._reported_lost = 0

    def write(self, line: bytes) -> None:
        """Write a line soon; lose it if too many lines wait."""
        self._lines.put(line)

    debug = info = warning = error = critical = write

    def flush(self) -> None:
        """Wait until all lines are written, or for a second."""
        self._lines.flush(_FLUSH_TIMEOUT_S)

    def _write_lines(self, lines: list[bytes]) -> None:
        for piece in pieces_of(line + b"\n" for line in lines):
            _write_all(piece)
        if (lost := self._lines.lost) != self._reported_lost:
            _write_all(_loss(lost - self._reported_lost) + b"\n")
            self._reported_lost = lost


def _write_all(content: bytes) -> None:
    """Raises if standard error is closed, or the disk behind it is full."""
    # The end of the interpreter would wait for the lock of the buffer.
    stream = getattr(sys.stderr.buffer, "raw", sys.stderr.buffer)
    rest = memoryview(content)
    while rest:
        written = stream.write(rest)
        if written is None:  # a pipe that does not block is full
            time.sleep(_RETRY_S)
        rest = rest[written or 0 :]


WRITER = LineWriter()
"""The writer of this process."""
atexit.register(WRITER.flush)


class _LibraryLines(logging.Handler):
    """Writes what libraries log as lines of the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


_LIBRARY_LINES = _LibraryLines()


def configure_logging(level: str) -> None:
    """Write lines of this level and above."""
    number = logging.getLevelNamesMapping()[level.upper()]
    root = logging.getLogger()
    # Below, gRPC logs objects that are being deallocated: a handler that keeps the record crashes Python.
    root.setLevel(max(number, logging.INFO))
    root.addHandler(_LIBRARY_LINES)
    logging.getLogger("authz").setLevel(number)
    # The database records what Alembic did.
    logging.getLogger("alembic").setLevel(max(number, logging.WARNING))
    serializer = _encode if number <= logging.DEBUG else _encode_without_people
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=serializer),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: WRITER,
    )


def log_uncaught() -> None:
    """Write warnings of Python, and exceptions that nothing catches, as lines too."""
    logging.captureWarnings(True)
    sys.excepthook = lambda _kind, error, _trace: _uncaught(error)
    threading.excepthook = lambda given: _uncaught(given.exc_value, thread=str(given.thread))
    sys.unraisablehook = lambda given: _uncaught(given.exc_value, where=repr(given.object))


def _uncaught(error: BaseException | None, **more: str) -> None:
    log.critical("uncaught exception", exc_info=error, **more)


def _loss(lines: int) -> bytes:
    event = {"lines": lines, "event": "log lines lost; standard error was not read", "level": "warning"}
    return _encode(structlog.processors.TimeStamper(fmt="iso", utc=True)(None, "", event), default=str)


def _encode(event: object, *, default: Callable[[Any], Any]) -> bytes:
    return msgspec.json.encode(event, enc_hook=default)


def _encode_without_people(event: object, *, default: Callable[[Any], Any]) -> bytes:
    return without_people(_encode(event, default=default))
