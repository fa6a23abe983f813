"""Logs: JSON lines on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import structlog


def configure_logging(level: str) -> None:
    """Write lines of this level and above."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=number, stream=sys.stderr)
    logging.getLogger("authz").setLevel(number)
    # Alembic logs in another format, and the database records what it did.
    logging.getLogger("alembic").setLevel(max(number, logging.WARNING))
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_encode),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
    )


def _encode(event: object, *, default: Callable[[Any], Any]) -> bytes:
    return msgspec.json.encode(event, enc_hook=default)
