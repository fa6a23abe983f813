"""The connections that are open to PostgreSQL: one that no answer comes on can be given up.

A machine or a process that stands still keeps its connections, as far as the network can tell, and whoever
asked it waits for ever.
"""

from __future__ import annotations

import os
import socket
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
import structlog
from sqlalchemy import Dialect, Engine, event

log = structlog.get_logger()


class OpenConnections:
    """Those of one engine. On SQLite there are none: nobody is waited for there without a bound."""

    def __init__(self, engine: Engine) -> None:
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[Any] = weakref.WeakSet()
        self._coming: set[Future[Any]] = set()
        self._ended = False
        if engine.dialect.name == "postgresql":
            event.listen(engine, "do_connect", self._connect)

    def abort_connections(self, *, permanently: bool) -> None:
        """Let whoever waits for an answer get an error at once; with `permanently`, also whoever waits for a
        connection, and nobody connects any more."""
        if not permanently:
            log.warning("database gives no answer; hanging up")
        with self._lock:
            self._ended = self._ended or permanently
            found = list(self._open)
            for coming in self._coming if permanently else ():
                if not coming.done():
                    coming.set_exception(_stopping())
        for connection in found:
            # Not closed, which is for the thread that uses it: the socket says that the other side has.
            with suppress(psycopg.Error, OSError):
                _shut_down(connection)

    def _connect(self, dialect: Dialect, _record: object, given: list[Any], settings: dict[str, Any]) -> Any:
        # In a thread of its own, which the end of the process does not wait for: there is no socket yet that
        # could be shut down, and the name of a host may take long to be found.
        coming: Future[Any] = Future()
        with self._lock:
            if self._ended:
                raise _stopping()
            self._coming.add(coming)
        try:
            connect = partial(dialect.connect, *given, **settings)
            threading.Thread(target=self._make, args=(coming, connect), name="connect", daemon=True).start()
            return coming.result()
        finally:
            with self._lock:
                self._coming.discard(coming)

    def _make(self, coming: Future[Any], connect: Callable[[], Any]) -> None:
        try:
            made = connect()
        except BaseException as error:  # noqa: BLE001  handed to whoever waits, as a pool of threads does
            with self._lock:
                if not coming.done():
                    coming.set_exception(error)
            return
        with self._lock:
            if not coming.done():
                self._open.add(made)
                coming.set_result(made)
                return
        made.close()


def _stopping() -> psycopg.OperationalError:
    return psycopg.OperationalError("the server is stopping")


def _shut_down(connection: Any) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        # What was closed meanwhile may have left its number to somebody else.
        if not connection.closed:
            line.shutdown(socket.SHUT_RDWR)
