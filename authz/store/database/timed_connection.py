"""A connection to PostgreSQL that knows how long it has waited for an answer.

A module of its own, which is imported when such a connection is made: psycopg takes a tenth of the start of a
server, and a server on SQLite needs none of it.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import Any

import psycopg

DATABASE_ANSWER_TIMEOUT_S = 20.0
"""How long a statement waits for its answer. After that the connection is aborted, and the next one may
reach another host that is the primary by now."""


class TimedConnection(psycopg.Connection[Any]):
    """Knows since when it waits for an answer."""

    waiting_since: float | None = None
    answer_timeout_s: float | None = None
    """None: the timeout of every connection."""

    def wait(self, *arguments: Any, **options: Any) -> Any:
        """Wait for one answer: to a statement, a fetch from a cursor, a commit or a rollback."""
        self.waiting_since = time.monotonic()
        try:
            return super().wait(*arguments, **options)
        finally:
            self.waiting_since = None

    def is_overdue(self) -> bool:
        """Whether the answer takes longer than it may."""
        since, timeout_s = self.waiting_since, self.answer_timeout_s or DATABASE_ANSWER_TIMEOUT_S
        return since is not None and time.monotonic() - since > timeout_s

    def shut_down(self) -> None:
        """Make the thread that uses this connection see its end. Only that thread may close it."""
        with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(self.fileno())) as duplicate:
            # If it was closed meanwhile, another connection may have its file descriptor.
            if not self.closed:
                duplicate.shutdown(socket.SHUT_RDWR)
