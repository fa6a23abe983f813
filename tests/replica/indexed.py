"""A replica with an index of its own, driven by a test, and what reads it with and without."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from authz.domain.ids import course_scope
from authz.domain.mutations import Change
from authz.replica.build import build_replica
from authz.replica.environment import Environment, acquire_environment, release_environment
from authz.replica.hash_index import MEMBERS, RESOURCES, is_index_file
from authz.replica.indexing import Indexing, open_index
from authz.replica.view import ReplicaSnapshot
from authz.replica.writer import apply_changes
from authz.store import Store
from tests.replica.conftest import MAX_BYTES
from tests.store.directory import create, lesson, notebook, student, user, write

_UNKNOWN = (b"u" + b"nobody\0c" + b"c\0", b"notebook\0none\0", b"", b"\xff")


class Replica:
    """A replica with an index of its own, both driven by the test."""

    def __init__(self, environment: Environment, stopped: bool = False) -> None:
        self.environment = environment
        self.mutex = threading.Lock()
        self.stopped = stopped
        self.indexing = Indexing(self.mutex, lambda: self.stopped, from_rows=0)
        with self.mutex:
            self.indexing.attach(environment)

    def index(self) -> int:
        """Have one made, if there is use for it; the number of what there is then."""
        self.indexing.keep_up()
        self.indexing.wait()
        return self.indexing.number

    def take(self, changes: Sequence[Change]) -> None:
        with self.mutex:
            apply_changes(self.environment, changes, self.indexing)

    def files(self) -> list[str]:
        return [path.name for path in self.environment.folder.iterdir() if is_index_file(path.name)]


def clock(*, ahead_s: float = 0.0, sleep: Callable[[float], object] = time.sleep) -> SimpleNamespace:
    """In place of `time`."""
    return SimpleNamespace(monotonic=lambda: time.monotonic() + ahead_s, time_ns=time.time_ns, sleep=sleep)


@contextmanager
def replica_of(store: Store, folder: Path) -> Iterator[Replica]:
    """Built from what a store holds now."""
    with store.directory.dump() as dump:
        build_replica(folder, dump, max_bytes=MAX_BYTES)
    environment = acquire_environment(folder, max_bytes=MAX_BYTES)
    try:
        replica = Replica(environment)
        yield replica
        replica.indexing.wait()
    finally:
        release_environment(environment)


def named(environment: Environment) -> int:
    """The index that the last state names."""
    with environment.lmdb.begin() as transaction:
        return environment.versions(transaction).index


class Reader:
    """One state, read with the index that it names and without."""

    def __init__(self, environment: Environment) -> None:
        self.asked = 0
        self._transaction = environment.lmdb.begin()
        self._tables = ((MEMBERS, environment.members), (RESOURCES, environment.resources))
        self._index = open_index(environment, environment.versions(self._transaction).index)

    def require_agreement(self, keys: set[bytes]) -> int:
        """Of all keys; return how many were found without asking LMDB."""
        found = 0
        for table, database in self._tables:

            def ask(key: bytes, database: Any = database) -> Any:
                self.asked += 1
                return self._transaction.get(key, db=database)

            find = ask if self._index is None else self._index.finder(table, ask)
            for key in keys:
                if key:  # LMDB takes no empty one
                    before = self.asked
                    assert find(key) == self._transaction.get(key, db=database), (table, key)
                    found += self.asked == before
        return found

    def close(self) -> None:
        self._transaction.abort()


def keys_of(environment: Environment) -> set[bytes]:
    """All keys of both tables, and some that are not there."""
    keys = set(_UNKNOWN)
    with environment.lmdb.begin() as transaction:
        for database in (environment.members, environment.resources):
            with transaction.cursor(database) as cursor:
                keys |= {bytes(key) for key in cursor.iternext(values=False)}
    return keys


def campus(store: Store, size: int = 40) -> None:
    write(store, *(create(entity) for entity in lesson("c", "s")))
    write(store, *(create(student(f"u{n}", "c")) for n in range(size)))
    write(store, *(create(notebook(f"n{n}", course_scope("c"))) for n in range(size)))


def held(snapshot: ReplicaSnapshot, name: str) -> tuple[Any, ...]:
    place = snapshot.place(course_scope("c"))
    assert place is not None
    return snapshot.grants(user(name), place)
