"""Who makes the hash index of a replica, tells it what changes, and makes it anew when much has."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
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
_MOST_CHANGED = 500_000
"""While one is made: a hundred megabytes of keys."""
_FEW = 1_000
"""Keys that are marked while all that writes waits: two milliseconds."""
_MOST_GROWTH = 1.25
"""How much larger LMDB's file may become for the state that an index is made of: its pages are not free."""
_PAGE = 500
"""Rows between two looks at whether to stop: a millisecond."""
_RESTS = 3
"""How much longer than it works the making rests."""
_RETRY_S = 60.0


class _StoppedError(Exception):
    """There is no more use for what is being made."""


class Indexing:
    """Keeps the index of the replica that a follower writes; one at a time.

    All but `keep_up` and `wait` is to be called by who holds `mutex`, as is all that changes the replica. An
    index is only of use for as long as each change is told: whoever begins to follow leaves that of before,
    whose follower may have been killed with marks on the way to a disk, and has one made.
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
        for path in environment.folder.iterdir():
            if is_index_file(path.name):
                path.unlink(missing_ok=True)
        # Readers that find it named find no file any more, also when there is no room to name none.
        try:
            _name(environment, 0)
        except (lmdb.MapFullError, lmdb.DiskError):
            log.warning("no room to say that there is no index", folder=str(environment.folder))
        self._environment = environment
        self._not_before = 0.0

    def detach(self) -> None:
        """Leave the replica as it is."""
        self._environment = self._marks = self._changed = None

    def give_up(self) -> None:
        """Leave what is being made: the state that it is made of holds on to pages that are needed."""
        self._changed = None

    def keep_up(self) -> None:
        """Have an index made, in a thread beside, if there is none or it is worn; leave one that a replica
        has become too small for."""
        environment = self._environment
        if environment is None or time.monotonic() < self._not_before or self._is_making():
            return
        rows = row_count(environment)
        if rows < self._from_rows:
            if self._marks is not None:
                with self._mutex:
                    self._withdraw(environment)
        elif self._marks is None or self._is_worn(self._marks, rows):
            self._not_before = time.monotonic() + _RETRY_S
            self._most_changed = min(rows // _WORN, _MOST_CHANGED)
            maker = threading.Thread(
                target=self._make, args=(environment,), name="follower-index", daemon=True
            )
            try:
                maker.start()
            except RuntimeError as error:  # there are too many
                log.warning("replica not indexed; checks go on without", cause=str(error))
            else:
                self._maker = maker

    def wait(self) -> None:
        """Return once none is being made."""
        if self._maker is not None:
            self._maker.join()

    def _is_making(self) -> bool:
        return self._maker is not None and self._maker.is_alive()

    def _is_worn(self, marks: Marks, rows: int) -> bool:
        is_old = time.monotonic() - self._made_at > _OLDEST_S
        return marks.worn * _WORN > rows or (is_old and marks.told > 0)

    def _withdraw(self, environment: Environment) -> None:
        if self._marks is not None and self._environment is environment:
            _name(environment, 0)
            marks, self._marks = self._marks, None
            marks.discard()

    def _make(self, environment: Environment) -> None:
        # What fails here fails nobody: LMDB has all that the index has.
        begun_s = time.monotonic()
        number = time.time_ns()  # nobody's before, whoever else is still making one here
        file = index_file(environment.folder, number)
        try:
            if self._build(environment, file) and self._publish(environment, number, file):
                log.info("replica indexed", elapsed_s=round(time.monotonic() - begun_s, 3))
        except _StoppedError:
            pass
        except (OSError, lmdb.MapFullError) as error:  # as a rule for want of room
            log.warning("replica not indexed; checks go on without", cause=str(error))
        except Exception:
            log.exception("replica not indexed; checks go on without", folder=str(environment.folder))
        with self._mutex:
            self._changed = None

    def _build(self, environment: Environment, file: Path) -> bool:
        with self._mutex:
            if self._environment is not environment:
                return False
            transaction = environment.lmdb.begin()
            share_environment(environment)
            self._changed = set()
            most_bytes = int(environment.size_bytes() * _MOST_GROWTH) + (1 << 20)

        def stopped() -> bool:
            return self._stopped() or self._changed is None or environment.size_bytes() > most_bytes

        def paced(pairs: Pairs) -> Iterator[tuple[Any, Any]]:
            """Leave most of the time to who else runs: one process that does all has checks to answer."""
            left = iter(pairs)
            begun_s = time.monotonic()
            while page := list(islice(left, _PAGE)):
                yield from page
                if stopped():
                    raise _StoppedError
                time.sleep(_RESTS * (time.monotonic() - begun_s))
                begun_s = time.monotonic()

        try:
            made = build_index(environment, transaction, file, paced=paced, stopped=stopped)
        finally:
            transaction.abort()
            release_environment(environment)
        if not made:
            log.info("replica not indexed: it would take more than half of the memory")
            with self._mutex:
                # Else somebody has begun with a replica anew, and this is of the one before.
                if self._changed is not None:
                    self._withdraw(environment)
                    self._not_before = math.inf
        return made

    def _publish(self, environment: Environment, number: int, file: Path) -> bool:
        """Have every state from the next one on found with the index that was made, if all is known of what
        changed meanwhile."""
        try:
            marks = Marks(file, number)
            while not self._stopped():
                with self._mutex:
                    changed, self._changed = self._changed, set()
                    if self._environment is not environment or changed is None:
                        break
                    if len(changed) <= _FEW:
                        marks.mark_all(changed)
                        _name(environment, number)
                        before, self._marks = self._marks, marks
                        self._made_at, self._not_before = time.monotonic(), 0.0
                        if before is not None:
                            before.discard()
                        return True
                # Before it is named, as all others: but all that writes need not wait for it.
                marks.mark_all(changed)
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        file.unlink(missing_ok=True)
        return False


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


def _name(environment: Environment, number: int) -> None:
    with environment.lmdb.begin(write=True) as transaction:
        versions = environment.versions(transaction)
        if versions.index != number:
            environment.set_versions(transaction, msgspec.structs.replace(versions, index=number))
