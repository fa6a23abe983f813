"""The connections that are open to PostgreSQL: one that no answer comes on can be given up.

A machine or a process that stands still keeps its connections, as far as the network can tell, and whoever
asked it waits for ever.
"""

from __future__ import annotations

import os
import socket
import threading
import weakref
from contextlib import suppress
from typing import Any

import psycopg
from sqlalchemy import Engine, event


class OpenConnections:
    """Those of one engine. On SQLite there are none: nobody is waited for there without a bound."""

    def __init__(self, engine: Engine) -> None:
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()
        self._ended = False
        if engine.dialect.name == "postgresql":
            event.listen(engine, "do_connect", self._require_going)
            event.listen(engine, "connect", self._add)

    def hang_up(self, *, for_good: bool) -> None:
        """Let whoever waits for an answer get an error at once. With `for_good`, nobody connects any more."""
        with self._lock:
            self._ended = self._ended or for_good
            found = list(self._open)
        for connection in found:
            # Not closed, which is for the thread that uses it: the socket says that the other side has.
            with suppress(psycopg.Error, OSError):
                _shut_down(connection)

    def _add(self, connection: Any, _record: object) -> None:
        with self._lock:
            self._open.add(connection)
            ended = self._ended
        if ended:
            _shut_down(connection)

    def _require_going(self, *_: object) -> None:
        if self._ended:
            raise psycopg.OperationalError("the server is stopping")


def _shut_down(connection: Any) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        # What was closed meanwhile may have left its number to somebody else.
        if not connection.closed:
            line.shutdown(socket.SHUT_RDWR)
