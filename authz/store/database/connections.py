"""The connections of a server to PostgreSQL: a watchdog ends those that get no answer, and a stop ends all.

A host that hangs, or a process on it that was suspended, keeps its connections open as far as the network can
tell, so a statement that was sent to it would wait forever.

For the pool of a server, `OpenConnections` connects: in a thread, by `NewestPrimary`, which chooses the host
and makes a `TimedConnection`. For a command (`opened`), `NewestPrimary` connects alone.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import Connection, Dialect, Engine, event

if TYPE_CHECKING:
    from authz.store.database.primary import NewestPrimary
    from authz.store.database.timed_connection import TimedConnection

log = structlog.get_logger()

_LONG_ANSWER_TIMEOUT_S = 600.0
_CHECK_INTERVAL_S = 1.0
_SEARCH_INTERVAL_S = 10.0
"""How soon a standby that was promoted is found while its primary goes on, or comes back."""


@contextmanager
def expecting_long_statements(connection: Connection) -> Iterator[None]:
    """Inside the block statements may read whole tables, and an answer may take ten minutes: a statement that
    sorts a whole table is silent until its first row."""
    if connection.dialect.name != "postgresql":
        yield
        return
    connection.exec_driver_sql("SET LOCAL enable_seqscan = on")
    driver: Any = connection.connection.driver_connection
    driver.answer_timeout_s = _LONG_ANSWER_TIMEOUT_S
    try:
        yield
    finally:
        driver.answer_timeout_s = None


class OpenConnections:
    """The connections of one engine. Does nothing on SQLite, where every wait has a timeout."""

    def __init__(self, engine: Engine) -> None:
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[TimedConnection] = weakref.WeakSet()
        self._connecting: set[Future[TimedConnection]] = set()
        self._aborted = False
        self._closed = threading.Event()
        self._primary: NewestPrimary[TimedConnection] | None = None
        self._options: dict[str, Any] = {}
        """Of the last connection: a password may have changed since the first."""
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
            connection.shut_down()

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
                    connection.shut_down()

    def _search(self, primary: NewestPrimary[TimedConnection]) -> None:
        while not (self._closed.wait(_SEARCH_INTERVAL_S) or self._aborted):
            primary.search(self._options, self._watch_over)
            outdated = primary.outdated()
            if outdated:
                log.warning("old primary left for its successor", connections=len(outdated))
            for connection in outdated:
                connection.shut_down()

    def _connect(self, _dialect: Dialect, _record: object, _given: object, options: dict[str, Any]) -> Any:
        # A thread of its own connects, which the end of the process does not wait for: there is no socket yet
        # that `abort_connections` could shut down, and the look-up of a host name may take long. The wait
        # for a connection has a timeout of its own for each host: `connect_timeout`.
        connecting: Future[TimedConnection] = Future()
        with self._lock:
            if self._aborted:
                raise _stopping()
            self._connecting.add(connecting)
            self._options = options
            primary = self._primary or self._begin(options)
        try:
            connect = partial(primary.connect, options, self._watch_over)
            _start_thread("connect", partial(self._make, connecting, connect))
            return connecting.result()
        finally:
            with self._lock:
                self._connecting.discard(connecting)

    def _begin(self, options: dict[str, Any]) -> NewestPrimary[TimedConnection]:
        """Prepare for the first connection, and only then: these modules import psycopg."""
        from authz.store.database.primary import NewestPrimary, has_several_hosts
        from authz.store.database.timed_connection import TimedConnection

        primary = self._primary = NewestPrimary(TimedConnection.connect)
        if has_several_hosts(options):
            _start_thread("primary-search", partial(self._search, primary))
        _start_thread("database-watchdog", self._watch)
        return primary

    def _watch_over(self, made: TimedConnection) -> None:
        with self._lock:
            self._open.add(made)

    def _make(self, connecting: Future[TimedConnection], connect: Callable[[], TimedConnection]) -> None:
        try:
            made = connect()
        except BaseException as error:  # noqa: BLE001  raised in the thread that waits, as a pool of threads does
            with self._lock:
                if not connecting.done():
                    connecting.set_exception(error)
            return
        with self._lock:
            if not connecting.done():
                connecting.set_result(made)
                return
        made.close()


def _start_thread(name: str, target: Callable[[], None]) -> None:
    threading.Thread(target=target, name=name, daemon=True).start()


def _stopping() -> Exception:
    from psycopg import OperationalError

    return OperationalError("the server is stopping")
