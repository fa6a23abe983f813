"""What is found with the hash index is what LMDB finds, in every state, whatever changes and fails."""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.domain.entities import Course, CourseState
from authz.domain.ids import course_scope
from authz.domain.mutations import Mutation
from authz.replica import hash_index, indexing
from authz.replica.caches import Caches
from authz.replica.environment import (
    UnusableError,
)
from authz.replica.hash_index import MEMBERS, HashIndex, index_file, is_index_file
from authz.replica.indexing import Indexing
from authz.replica.layout import scope_key, subject_key
from authz.replica.view import ReplicaSnapshot
from authz.replica.writer import apply_changes
from authz.store import Store
from tests.replica.conftest import following, generation_of, until, viewing
from tests.replica.indexed import Reader, Replica, campus, clock, held, keys_of, named, replica_of
from tests.store.directory import (
    changes_of,
    create,
    notebook,
    open_with,
    remove,
    student,
    user,
    write,
)
from tests.store.test_history import BATCHES


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(BATCHES, st.booleans()), min_size=1, max_size=8))
def test_every_state_is_read_alike_with_and_without(history: list[tuple[list[Mutation], bool]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        store = open_with(f"sqlite:///{Path(name) / 'authz.db'}")
        readers: list[Reader] = []
        try:
            with replica_of(store, Path(name) / "r") as replica:
                keys = keys_of(replica.environment)
                for batch, indexes in history:
                    before = store.directory.head().revision
                    store.directory.import_batch(batch, offset=0, actor="", request_id="", reason="")
                    if indexes:
                        replica.index()
                    replica.take(changes_of(store, before, 10))
                    keys |= keys_of(replica.environment)
                    readers.append(Reader(replica.environment))
                    for reader in readers:  # also those of states that have passed
                        reader.require_agreement(keys)
                for reader in readers:
                    reader.close()
        finally:
            store.close()


def test_what_has_not_changed_is_found_without_lmdb(sqlite_store: Store, tmp_path: Path) -> None:
    campus(sqlite_store)
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        keys = keys_of(replica.environment)
        assert replica.index() > 0
        reader = Reader(replica.environment)
        asks_twice = len([key for key in keys if key])
        assert reader.require_agreement(keys) == 2 * asks_twice
        reader.close()
        head = sqlite_store.directory.head().revision
        write(sqlite_store, remove(student("u7", "c").key))
        replica.take(changes_of(sqlite_store, head, 1))
        reader = Reader(replica.environment)
        assert 0 < 2 * asks_twice - reader.require_agreement(keys) < 8  # one slot, and who shares it
        reader.close()


@pytest.mark.parametrize("few", [0, 1000])
def test_what_changes_while_an_index_is_made_is_asked_for(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(indexing, "_FEW", few)  # else marked while writes go on
    campus(sqlite_store)
    left = [remove(student(f"u{n}", "c").key) for n in (3, 30)]
    left += [create(student("late", "c")), create(notebook("late", course_scope("c")))]
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        before = Reader(replica.environment)

        def meanwhile(_seconds: float) -> None:
            if left:
                head = sqlite_store.directory.head().revision
                write(sqlite_store, left.pop())
                replica.take(changes_of(sqlite_store, head, 1))

        monkeypatch.setattr(indexing, "_PAGE", 7)
        monkeypatch.setattr(
            indexing, "time", SimpleNamespace(monotonic=time.monotonic, time_ns=time.time_ns, sleep=meanwhile)
        )
        assert replica.index() > 0
        assert not left
        keys = keys_of(replica.environment) | {subject_key(user("u3")) + scope_key(course_scope("c"))}
        after = Reader(replica.environment)
        assert before.require_agreement(keys) == 0  # its state names none
        assert after.require_agreement(keys) > 0
        before.close()
        after.close()


def test_a_change_that_is_not_told_leaves_the_index(sqlite_store: Store, tmp_path: Path) -> None:
    campus(sqlite_store)
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        number = replica.index()
        assert named(replica.environment) == number
        head = sqlite_store.directory.head().revision
        write(sqlite_store, remove(student("u7", "c").key))
        apply_changes(replica.environment, changes_of(sqlite_store, head, 1))
        assert named(replica.environment) == 0
        reader = Reader(replica.environment)
        assert reader.require_agreement(keys_of(replica.environment)) == 0
        reader.close()


def test_an_index_that_is_worn_is_made_anew_and_the_old_one_deleted(
    sqlite_store: Store, tmp_path: Path
) -> None:
    campus(sqlite_store)
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        first = replica.index()
        assert replica.index() == first  # as good as new
        with_first = Reader(replica.environment)
        head = sqlite_store.directory.head().revision
        write(sqlite_store, *(remove(student(f"u{n}", "c").key) for n in range(20)))
        keys = keys_of(replica.environment)
        replica.take(changes_of(sqlite_store, head, 1))
        second = replica.index()
        assert second > first
        assert replica.files() == [index_file(tmp_path, second).name]
        with_second = Reader(replica.environment)
        assert with_first.require_agreement(keys) > 0
        assert with_second.require_agreement(keys) > with_first.require_agreement(keys)
        with_first.close()
        with_second.close()


def test_what_was_deleted_is_gone_from_the_index_after_a_day(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campus(sqlite_store)
    write(sqlite_store, create(student("erased", "c")))
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        first = replica.index()
        head = sqlite_store.directory.head().revision
        write(sqlite_store, remove(student("erased", "c").key))
        replica.take(changes_of(sqlite_store, head, 1))
        assert replica.index() == first
        monkeypatch.setattr(indexing, "time", clock(ahead_s=86_401))
        second = replica.index()
        assert second > first
        assert b"erased" not in index_file(tmp_path / "r", second).read_bytes()
        monkeypatch.setattr(indexing, "time", clock(ahead_s=2 * 86_401))
        assert replica.index() == second  # nothing was deleted since


def test_when_too_much_changes_meanwhile_there_is_none(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campus(sqlite_store)
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        head = sqlite_store.directory.head().revision
        write(sqlite_store, *(remove(student(f"u{n}", "c").key) for n in range(20)))
        changes = list(changes_of(sqlite_store, head, 1))

        def meanwhile(_seconds: float) -> None:
            if changes:
                replica.take([changes.pop()])

        monkeypatch.setattr(
            indexing, "time", SimpleNamespace(monotonic=time.monotonic, time_ns=time.time_ns, sleep=meanwhile)
        )
        assert replica.index() == 0
        assert not changes
        assert replica.files() == []
        assert named(replica.environment) == 0


def test_what_a_follower_left_is_not_trusted_by_the_next(sqlite_store: Store, tmp_path: Path) -> None:
    campus(sqlite_store)
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        number = replica.index()
        index_file(tmp_path / "r", 99).with_suffix(".new").touch()  # as one that was killed leaves it
        assert named(replica.environment) == number
        another = Replica(replica.environment)
        assert named(replica.environment) == 0
        assert another.files() == []


@pytest.mark.parametrize("damage", ["gone", "empty", "cut off", "noise"])
def test_an_index_that_cannot_be_opened_is_done_without(
    sqlite_store: Store, tmp_path: Path, damage: str
) -> None:
    campus(sqlite_store)
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        file = index_file(tmp_path / "r", replica.index())
        whole = file.read_bytes()
        file.unlink()
        if damage != "gone":
            file.write_bytes({"empty": b"", "cut off": whole[:-8], "noise": os.urandom(len(whole))}[damage])
        with pytest.raises(UnusableError):
            HashIndex(file)
        reader = Reader(replica.environment)
        assert reader.require_agreement(keys_of(replica.environment)) == 0
        reader.close()


@pytest.mark.parametrize("byte", [0, 1])
def test_in_a_damaged_page_is_nobody_and_a_search_ends(
    sqlite_store: Store, tmp_path: Path, byte: int
) -> None:
    campus(sqlite_store)
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        file = index_file(tmp_path / "r", replica.index())
        keys = keys_of(replica.environment)
        index = HashIndex(file)
        with file.open("r+b") as opened:
            opened.seek(mmap.PAGESIZE)
            opened.write(bytes((byte,)) * (file.stat().st_size - mmap.PAGESIZE))
        find = index.finder(MEMBERS, lambda _key: pytest.fail("nothing has changed"))
        assert [find(key) for key in keys] == [None] * len(keys)


def ids_of_one_slot(count: int) -> Iterator[str]:
    """Ids of students whose hashes are alike as far as a table of less than 500 looks at them."""
    number = 0
    tail = scope_key(course_scope("c"))
    while count:
        number += 1
        hashed = crc32(subject_key(user(f"x{number}")) + tail)
        if not (hashed >> 29 or hashed & 255):
            count -= 1
            yield f"x{number}"


@pytest.mark.parametrize(("count", "asks"), [(30, False), (300, True)])
def test_ids_of_one_hash_are_told_apart_and_do_not_make_others_wait(
    sqlite_store: Store, tmp_path: Path, count: int, asks: bool
) -> None:
    write(sqlite_store, create(Course(id="c", state=CourseState.ACTIVE)))
    names = list(ids_of_one_slot(count))
    write(sqlite_store, *(create(student(name, "c")) for name in names))
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        assert replica.index() > 0
        reader = Reader(replica.environment)
        reader.require_agreement(keys_of(replica.environment))
        assert (reader.asked >= count) is asks
        reader.close()


def test_the_longest_ids_are_found_or_asked_for(sqlite_store: Store, tmp_path: Path) -> None:
    long = "x" * 128
    write(sqlite_store, create(Course(id=long, state=CourseState.ACTIVE)))
    write(sqlite_store, *(create(student(f"{n:0128}", long)) for n in range(100)))
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        assert replica.index() > 0
        reader = Reader(replica.environment)
        assert reader.require_agreement(keys_of(replica.environment)) > 100
        assert reader.asked < 20
        reader.close()


def test_a_disk_without_room_fails_nobody(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campus(sqlite_store)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        assert replica.index() == 0
        assert replica.files() == []
        monkeypatch.undo()
        assert replica.index() == 0  # not at once again
        monkeypatch.setattr(
            indexing, "time", SimpleNamespace(monotonic=lambda: 1e9, time_ns=time.time_ns, sleep=time.sleep)
        )
        assert replica.index() > 0


def test_what_would_take_more_than_half_of_the_memory_is_not_made(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campus(sqlite_store)
    monkeypatch.setattr(hash_index, "fits_in_memory", lambda _size_bytes: False)
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        assert replica.index() == 0
        assert replica.files() == []


def test_a_small_replica_gets_none(sqlite_store: Store, tmp_path: Path) -> None:
    campus(sqlite_store)
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        replica.indexing = Indexing(replica.mutex, lambda: False, from_rows=1000)
        replica.indexing.attach(replica.environment)
        assert replica.index() == 0


def test_a_stop_ends_the_making(sqlite_store: Store, tmp_path: Path) -> None:
    campus(sqlite_store)
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        replica.stopped = True
        assert replica.index() == 0
        assert replica.files() == []


def test_who_asks_gets_the_index_of_a_follower_and_sees_every_revocation(
    store: Store, tmp_path: Path
) -> None:
    campus(store)
    folder = tmp_path / "r"

    def uses_one() -> bool:
        view.let_go()
        return view.snapshot()._caches.index is not None

    for _ in range(2):  # the second follower finds the replica, and makes an index of its own
        with following(store, folder, index_from_rows=0), viewing(folder) as view:
            until(uses_one, "the index")
            write(store, create(student("eve", "c")))
            until(lambda: len(held(view.snapshot(), "eve")) == 1)
            write(store, remove(student("eve", "c").key))
            until(lambda: not held(view.snapshot(), "eve"))
            assert len(held(view.snapshot(), "u3")) == 1
            until(lambda: all(each.name != "follower-index" for each in threading.enumerate()))
    generation = folder / str(generation_of(folder))
    assert len([path for path in generation.iterdir() if is_index_file(path.name)]) == 1


def test_a_snapshot_keeps_to_the_index_of_its_state(sqlite_store: Store, tmp_path: Path) -> None:
    campus(sqlite_store)
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        caches = Caches()
        first = ReplicaSnapshot(replica.environment, "d", caches)
        assert caches.index is None
        replica.index()
        assert first.is_outdated()
        head = sqlite_store.directory.head().revision
        write(sqlite_store, remove(student("u7", "c").key))
        replica.take(changes_of(sqlite_store, head, 1))
        second = ReplicaSnapshot(replica.environment, "d", caches)
        of_second = caches.index
        assert of_second is not None
        assert (len(held(first, "u7")), len(held(second, "u7"))) == (1, 0)
        assert (len(held(first, "u8")), len(held(second, "u8"))) == (1, 1)
        write(sqlite_store, *(remove(student(f"u{n}", "c").key) for n in range(8, 30)))
        replica.take(changes_of(sqlite_store, head + 1, 1))
        replica.index()
        write(sqlite_store, remove(student("u30", "c").key))
        replica.take(changes_of(sqlite_store, head + 2, 1))
        third = ReplicaSnapshot(replica.environment, "d", caches)
        assert caches.index not in (None, of_second)
        assert [len(held(third, name)) for name in ("u7", "u8", "u30", "u31")] == [0, 0, 0, 1]
