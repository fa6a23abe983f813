"""The open connections to PostgreSQL: a watchdog ends those that get no answer, and a stop ends all.

A host that hangs, or a process on it that was suspended, keeps its connections open as far as the network can
tell, so a statement that was sent to it would wait forever.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import psycopg
import structlog
from sqlalchemy import Connection, Dialect, Engine, event

log = structlog.get_logger()

DATABASE_ANSWER_TIMEOUT_S = 20.0
"""How long a statement waits for its answer. After that the connection is aborted, and the next one may
reach another host that is the primary by now."""
_LONG_ANSWER_TIMEOUT_S = 600.0
_CHECK_INTERVAL_S = 1.0


class _TimedConnection(psycopg.Connection[Any]):
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


@contextmanager
def expecting_long_statements(connection: Connection) -> Iterator[None]:
    """Inside the block an answer may take ten minutes: a statement that sorts a whole table is silent until
    its first row."""
    driver: Any = connection.connection.driver_connection
    if not isinstance(driver, _TimedConnection):
        yield
        return
    driver.answer_timeout_s = _LONG_ANSWER_TIMEOUT_S
    try:
        yield
    finally:
        driver.answer_timeout_s = None


class OpenConnections:
    """The connections of one engine. Does nothing on SQLite, where every wait has a timeout."""

    def __init__(self, engine: Engine) -> None:
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[_TimedConnection] = weakref.WeakSet()
        self._connecting: set[Future[_TimedConnection]] = set()
        self._aborted = False
        self._closed = threading.Event()
        self._watchdog: threading.Thread | None = None
        if engine.dialect.name == "postgresql":
            event.listen(engine, "do_connect", self._connect)

    def abort_connections(self) -> None:
        """Raise an error in every thread that waits for an answer or a connection, and in each that needs a
        connection later."""
        with self._lock:
            self._aborted = True
            found = list(self._open)
            for connecting in self._connecting:
                if not connecting.done():
                    connecting.set_exception(_stopping())
        for connection in found:
            _shut_down(connection)

    def close(self) -> None:
        """Stop the watchdog."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(_CHECK_INTERVAL_S):
            with self._lock:
                found = list(self._open)
            for connection in found:
                if connection.is_overdue():
                    log.warning("database gives no answer; connection aborted")
                    _shut_down(connection)

    def _connect(self, _dialect: Dialect, _record: object, given: list[Any], options: dict[str, Any]) -> Any:
        # A thread of its own connects, which the end of the process does not wait for: there is no socket yet
        # that `abort_connections` could shut down, and the look-up of a host name may take long. The wait
        # for a connection has a timeout of its own for each host: `connect_timeout`.
        connecting: Future[_TimedConnection] = Future()
        with self._lock:
            if self._aborted:
                raise _stopping()
            self._connecting.add(connecting)
            if self._watchdog is None:
                self._watchdog = threading.Thread(target=self._watch, name="database-watchdog", daemon=True)
                self._watchdog.start()
        try:
            connect = partial(_TimedConnection.connect, *given, **options)
            threading.Thread(
                target=self._make, args=(connecting, connect), name="connect", daemon=True
            ).start()
            return connecting.result()
        finally:
            with self._lock:
                self._connecting.discard(connecting)

    def _make(self, connecting: Future[_TimedConnection], connect: Callable[[], _TimedConnection]) -> None:
        try:
            made = connect()
        except BaseException as error:  # noqa: BLE001  raised in the thread that waits, as a pool of threads does
            with self._lock:
                if not connecting.done():
                    connecting.set_exception(error)
            return
        with self._lock:
            if not connecting.done():
                self._open.add(made)
                connecting.set_result(made)
                return
        made.close()


def _stopping() -> psycopg.OperationalError:
    return psycopg.OperationalError("the server is stopping")


def _shut_down(connection: psycopg.Connection[Any]) -> None:
    """Make the thread that uses a connection see its end. Only that thread may close it."""
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        # If it was closed meanwhile, another connection may have its file descriptor.
        if not connection.closed:
            duplicate.shutdown(socket.SHUT_RDWR)
