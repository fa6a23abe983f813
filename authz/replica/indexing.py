"""Who makes the hash index of a replica, tells it what changes, and makes it anew when much has."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import lmdb
import msgspec
import structlog

from authz.replica.environment import Environment, UnusableError, release_environment, share_environment
from authz.replica.hash_index import HashIndex, Marks, Pairs, build_index, index_file, is_index_file

log = structlog.get_logger()

INDEX_FROM_ROWS = 100_000
"""Of members and resources together. With fewer LMDB is as fast: the caches of a processor hold them."""
_WORN = 8
"""An index is made anew once one in so many rows has changed since."""
_OLDEST_S = 86_400.0
"""Or once anything has, after a day: what is deleted is not to be kept here for longer."""
_PAGE = 500
"""Rows between two looks at whether to stop: a millisecond."""
_RETRY_S = 60.0


class _StoppedError(Exception):
    """There is no more use for what is being made."""


class Indexing:
    """Keeps the index of the replica that a follower writes; one at a time.

    All but `keep_up` is to be called by who holds `mutex`, as is all that changes the replica. An index is
    only of use for as long as each change is told: whoever begins to follow leaves that of before, whose
    follower may have been killed with marks on the way to a disk, and has one made.
    """

    def __init__(
        self, mutex: threading.Lock, stopped: Callable[[], bool], *, from_rows: int = INDEX_FROM_ROWS
    ) -> None:
        self._mutex = mutex
        self._stopped = stopped
        self._from_rows = from_rows
        self._environment: Environment | None = None
        self._marks: Marks | None = None
        # While one is made: what has changed since the state that it is made of. None when that is not known.
        self._changed: set[tuple[int, bytes]] | None = None
        self._most_changed = 0
        self._maker: threading.Thread | None = None
        self._not_before = 0.0
        self._made_at = 0.0

    @property
    def number(self) -> int:
        """Which index is told of every change; 0 for none."""
        return 0 if self._marks is None else self._marks.number

    def tell(self, table: int, key: bytes) -> None:
        """Something under this key is about to be changed."""
        if self._marks is not None:
            self._marks.mark(table, key)
        if self._changed is not None:
            self._changed.add((table, key))
            if len(self._changed) > self._most_changed:
                self._changed = None

    def attach(self, environment: Environment) -> None:
        """Begin with a replica, in which nothing is changed from now on but by telling."""
        self.detach()
        with environment.lmdb.begin(write=True) as transaction:
            _name(environment, transaction, 0)
        for path in environment.folder.iterdir():
            if is_index_file(path.name):
                path.unlink(missing_ok=True)
        self._environment = environment
        self._not_before = 0.0

    def detach(self) -> None:
        """Leave the replica as it is."""
        self._environment = self._marks = self._changed = None

    def keep_up(self) -> None:
        """Have an index made, in a thread beside, if there is none or it is worn."""
        if self._maker is not None and self._maker.is_alive():
            return
        environment, marks = self._environment, self._marks
        if environment is None or time.monotonic() < self._not_before:
            return
        rows = row_count(environment)
        if rows >= self._from_rows and (marks is None or self._is_worn(marks, rows)):
            self._most_changed = rows // _WORN
            self._maker = threading.Thread(
                target=self._make, args=(environment,), name="follower-index", daemon=True
            )
            self._maker.start()

    def _is_worn(self, marks: Marks, rows: int) -> bool:
        is_old = time.monotonic() - self._made_at > _OLDEST_S
        return marks.worn * _WORN > rows or (is_old and marks.worn > 0)

    def wait(self) -> None:
        """Return once none is being made."""
        if self._maker is not None:
            self._maker.join()

    def _make(self, environment: Environment) -> None:
        # What fails here fails nobody: LMDB has all that the index has.
        begun_s = time.monotonic()
        self._not_before = begun_s + _RETRY_S
        try:
            with self._mutex:
                if self._environment is not environment:
                    return
                share_environment(environment)
                transaction = environment.lmdb.begin()
                self._changed = set()
            try:
                number = transaction.id()
                file = index_file(environment.folder, number)
                made = build_index(environment, transaction, file, paced=self._paced, stopped=self._stopped)
            finally:
                transaction.abort()
                release_environment(environment)
            if not made:
                log.info("replica not indexed: it would take more than half of the memory")
                self._not_before = math.inf
            elif self._publish(environment, number):
                self._not_before = 0.0
                log.info("replica indexed", elapsed_s=round(time.monotonic() - begun_s, 3))
        except _StoppedError:
            pass
        except Exception:
            log.exception("replica not indexed; checks go on without", folder=str(environment.folder))
        finally:
            with self._mutex:
                self._changed = None

    def _publish(self, environment: Environment, number: int) -> bool:
        """Have every state from the next one on found with the index that was made, if all is known of what
        changed meanwhile."""
        file = index_file(environment.folder, number)
        with self._mutex:
            if self._environment is not environment or self._changed is None:
                file.unlink(missing_ok=True)
                return False
            marks = Marks(file, number)
            for table, key in self._changed:
                marks.mark(table, key)
            with environment.lmdb.begin(write=True) as transaction:
                _name(environment, transaction, number)
            before, self._marks, self._made_at = self._marks, marks, time.monotonic()
            if before is not None:
                before.discard()
        return True

    def _paced(self, pairs: Pairs) -> Iterator[tuple[Any, Any]]:
        """Leave half of the time to who else runs: where one process does all, it has checks to answer."""
        left = iter(pairs)
        begun_s = time.monotonic()
        while page := list(islice(left, _PAGE)):
            yield from page
            if self._stopped() or self._changed is None:
                raise _StoppedError
            time.sleep(time.monotonic() - begun_s)
            begun_s = time.monotonic()


def row_count(environment: Environment) -> int:
    """How many rows an index of a replica has."""
    with environment.lmdb.begin() as transaction:
        return sum(
            transaction.stat(database)["entries"] for database in (environment.members, environment.resources)
        )


def open_index(environment: Environment, number: int) -> HashIndex | None:
    """The index that a state names; None for none, and when it has just been replaced."""
    if not number:
        return None
    try:
        return HashIndex(index_file(environment.folder, number))
    except UnusableError as error:
        log.warning("index not usable; checks go on without", cause=str(error))
        return None


def _name(environment: Environment, transaction: lmdb.Transaction, number: int) -> None:
    versions = environment.versions(transaction)
    if versions.index != number:
        environment.set_versions(transaction, msgspec.structs.replace(versions, index=number))
