"""Notifies of commits: by LISTEN/NOTIFY on PostgreSQL, by polling the counter on SQLite."""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sqlalchemy import Engine, select

from authz.domain.ports import CommitNotifier
from authz.store.database.failures import translated
from authz.store.database.local_commits import LocalCommits
from authz.store.tables import REVISIONS_CHANNEL, counter

_INITIAL_BACKOFF_S = 0.004
_MAX_BACKOFF_S = 0.008
_STAYS_IDLE = """
    SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'
"""
"""A connection that listens is idle until somebody commits. PostgreSQL has this timeout since version 14."""
_HEAD = str(select(counter.c.revision))


def open_notifier(engine: Engine, commits: LocalCommits) -> CommitNotifier:
    """The notifier for this kind of database. Connects at the first wait. `commits` are those of this
    process, which are held a moment after they are made."""
    if engine.dialect.name == "postgresql":
        return PostgresqlNotifier(engine, commits)
    return SqliteNotifier(engine, commits)


class PostgresqlNotifier(CommitNotifier):
    """Listens for commits with LISTEN, on a connection of its own."""

    def __init__(self, engine: Engine, commits: LocalCommits) -> None:
        self._engine, self._commits = engine, commits
        self._connection: Any = None
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._closing = threading.Lock()
        self._closed = False

    def wait(self, timeout_s: float, held: Callable[[], int]) -> None:
        deadline = time.monotonic() + timeout_s
        with translated():
            if self._connection is None:
                self._listen()
                return  # commits before LISTEN sent no notification here
            while (left_s := deadline - time.monotonic()) > 0:
                with selectors.DefaultSelector() as selector:
                    selector.register(self._connection.fileno(), selectors.EVENT_READ)
                    selector.register(self._wake_read, selectors.EVENT_READ)
                    ready = {key.fd for key, _ in selector.select(left_s)}
                if self._wake_read in ready:
                    os.read(self._wake_read, 4096)
                    return
                if ready and (head := self._last_notified()) > held():
                    self._commits.wait()
                    if head > held():
                        return

    def wake(self) -> None:
        # After `close` another file may have the file descriptor of the pipe.
        with self._closing, suppress(BlockingIOError):  # a full pipe wakes the thread, too
            if not self._closed:
                os.write(self._wake_write, b"!")

    def close(self) -> None:
        self._disconnect()
        with self._closing:
            self._closed = True
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _listen(self) -> None:
        connection = _connect(self._engine)
        try:
            connection.autocommit = True
            connection.execute(_STAYS_IDLE)
            connection.execute(f"LISTEN {REVISIONS_CHANNEL}")
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _last_notified(self) -> int:
        """The head in the last notification; -1 if what arrived was something else."""
        try:
            payloads = [notice.payload for notice in self._connection.notifies(timeout=0)]
        except Exception:
            self._disconnect()
            raise
        return int(payloads[-1]) if payloads else -1

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class SqliteNotifier(CommitNotifier):
    """Reads the counter every few milliseconds, with backoff while nothing is committed.

    A read takes microseconds, but each one takes the GIL from other threads.
    """

    def __init__(self, engine: Engine, commits: LocalCommits) -> None:
        self._engine, self._commits = engine, commits
        self._connection: Any = None
        self._woken = threading.Event()

    def wait(self, timeout_s: float, held: Callable[[], int]) -> None:
        deadline = time.monotonic() + timeout_s
        backoff_s = _INITIAL_BACKOFF_S
        with translated():
            if self._connection is None:
                self._connection = _connect(self._engine)
            while True:
                (head,) = self._connection.execute(_HEAD).fetchone()
                if head != held():
                    self._commits.wait()
                left_s = deadline - time.monotonic()
                if head != held() or left_s <= 0 or self._woken.wait(min(backoff_s, left_s)):
                    self._woken.clear()
                    return
                backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _connect(engine: Engine) -> Any:
    """A driver connection that never returns to the pool, which would reset it."""
    pooled = engine.raw_connection()
    connection = pooled.driver_connection
    pooled.detach()
    return connection
