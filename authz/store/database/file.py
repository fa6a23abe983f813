"""The file of a SQLite database: made for its owner alone, and noticed when another takes its place.

SQLite goes on with the file that it opened: after that was deleted or replaced, every write would be lost
without an error. Where there is no file, SQLite makes an empty one, in which nobody has a membership.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from authz.store.database.failures import missing_file, require_unmoved

_MODE = 0o600
_WAL_SUFFIX = "-wal"
_QUEUE_SUFFIX = "-queue"
SIDE_FILES = (_WAL_SUFFIX, "-shm", "-journal", _QUEUE_SUFFIX)
"""What is added to the name of a database for the files that SQLite and this module keep next to it."""
_TURN_TIMEOUT_S = 2.0
_TURN_POLL_S = 0.001


class DatabaseFile:
    """The file that the connections of one engine have open, with its write-ahead log. For any thread."""

    def __init__(self, path: Path, *, create: bool) -> None:
        self._path = path.absolute()
        self._queue = self._path.with_name(self._path.name + _QUEUE_SUFFIX)
        self._create = create
        self._lock = threading.Lock()
        self._opened: sqlite3.Connection | None = None
        self._identities: dict[Path, tuple[int, int] | None] = {}

    def prepare(self) -> None:
        """Before SQLite connects: make an empty file that only its owner may read, if there is none and this
        may `create` one.

        SQLite gives its write-ahead log the same mode. Raises as `require_in_place`, and `UnavailableError`
        (STORE_UNAVAILABLE) for a file that is missing or empty, and may not be created. If no file can be
        made, SQLite says so next.
        """
        self.require_in_place()
        if self._opened is not None:
            return
        if self._create:
            # A file that is there must not even be opened: closing it would drop the locks that SQLite has
            # taken for this process, and another process would delete the write-ahead log as the last one.
            # Source: https://www.sqlite.org/howtocorrupt.html, 2.2
            with suppress(OSError):
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _MODE))
        elif _is_empty(self._path):
            raise missing_file()

    def hold(self) -> None:
        """Remember which file this is, from the first connection until `release`.

        A connection of its own stays open, for SQLite deletes the write-ahead log with the last one.
        """
        with self._lock:
            if self._opened is not None:
                return
            before = _identity_of(self._path)
            opened = sqlite3.connect(self._path, check_same_thread=False)
            try:
                # The first read opens the write-ahead log.
                opened.execute("SELECT count(*) FROM sqlite_master").fetchone()
                found = {path: _identity_of(path) for path in (self._path, self._wal())}
                require_unmoved(before is not None and found[self._path] == before)
            except BaseException:
                opened.close()
                raise
            self._identities = {path: identity for path, identity in found.items() if identity is not None}
            self._opened = opened

    def require_in_place(self) -> None:
        """Raise `UnavailableError` (STORE_REPLACED) if the file or its write-ahead log was deleted or
        replaced since it was opened."""
        for path, identity in self._identities.items():
            require_unmoved(_identity_of(path) == identity)

    @contextmanager
    def next_to_write(self) -> Iterator[None]:
        """Take the write lock of SQLite in the block, as the only one of all processes that waits for it.

        SQLite polls for its lock, and who has just committed takes it again before the others look: two
        processes that write without pause let a third wait for seconds. Here who has committed queues again.
        After a timeout, such as with a process that is stopped in its block, goes on without a turn.
        """
        try:
            queue = os.open(self._queue, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, _MODE)
        except OSError:
            yield  # SQLite needs the folder, too, and says what is wrong with it
            return
        try:
            end_at = time.monotonic() + _TURN_TIMEOUT_S
            while not _try_lock(queue) and time.monotonic() < end_at:
                time.sleep(_TURN_POLL_S)
            yield
        finally:
            os.close(queue)  # and with it the lock

    def release(self) -> None:
        """Forget the file, after the last connection was closed."""
        with self._lock:
            self._identities = {}
            if self._opened is not None:
                self._opened.close()
                self._opened = None
        # SQLite also deletes its files. Processes that queue in this one continue, at worst out of turn.
        with suppress(OSError):
            self._queue.unlink()

    def _wal(self) -> Path:
        return self._path.with_name(self._path.name + _WAL_SUFFIX)


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_empty(path: Path) -> bool:
    """Whether there is no file, or one without content: to SQLite, that is an empty database."""
    try:
        return path.stat().st_size == 0
    except (FileNotFoundError, NotADirectoryError):
        return True


def _identity_of(path: Path) -> tuple[int, int] | None:
    """Device and inode; None if there is no file."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
