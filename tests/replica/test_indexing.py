"""Whatever fails while an index is made or left, nothing stale is served and nothing is left behind."""

from __future__ import annotations

import gc
import struct
import threading
import time
from pathlib import Path
from typing import Any

import lmdb
import pytest

from authz.replica import environment as environment_module
from authz.replica import hash_index, indexing
from authz.replica.caches import Caches
from authz.replica.environment import Environment
from authz.replica.hash_index import index_file, is_index_file
from authz.replica.indexing import Indexing
from authz.replica.pages import read_in
from authz.replica.shared import SharedState
from authz.replica.view import ReplicaSnapshot, ReplicaView
from authz.store import Store
from tests.replica.conftest import following, generation_of, served, until, viewing
from tests.replica.indexed import Replica, campus, clock, held, replica_of
from tests.store.directory import changes_of, create, remove, share, student, write

OTHER_BOOT = 1


def index_files(folder: Path) -> list[Path]:
    generation = folder / str(generation_of(folder))
    return [path for path in generation.iterdir() if is_index_file(path.name)]


def until_used(view: ReplicaView) -> None:
    def used() -> bool:
        view.let_go()
        return served(view) and view.snapshot()._caches.index is not None

    until(used, "the index")
    until(lambda: all(each.name != "follower-index" for each in threading.enumerate()))


@pytest.mark.parametrize("fault", [lmdb.DiskError("no space"), lmdb.MapFullError("full")])
def test_marks_that_a_loss_of_power_took_are_not_missed(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    folder = tmp_path / "r"
    campus(sqlite_store)
    with following(sqlite_store, folder, index_from_rows=0), viewing(folder) as view:
        until_used(view)
        (file,) = index_files(folder)
        unmarked = file.read_bytes()
        write(sqlite_store, remove(student("u7", "c").key))
        until(lambda: not held(view.snapshot(), "u7"))
    file.write_bytes(unmarked)  # LMDB's commit had reached the disk, and the mark had not
    state = SharedState(folder)
    state.words[0] = OTHER_BOOT
    state.close()
    name, failed = indexing._name, list[int]()

    def fails_once(environment: Environment, number: int) -> None:
        if not failed:
            failed.append(number)
            raise fault
        name(environment, number)

    monkeypatch.setattr(indexing, "_name", fails_once)
    with following(sqlite_store, folder, index_from_rows=0), viewing(folder) as view:
        until(lambda: served(view))
        assert failed == [0]
        assert held(view.snapshot(), "u7") == ()
        until_used(view)
        assert held(view.snapshot(), "u7") == ()


def test_an_index_that_could_not_be_deleted_keeps_the_replica_from_being_served(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "r"
    campus(sqlite_store)
    with following(sqlite_store, folder):
        old = folder / str(generation_of(folder)) / "index-5"
    old.touch()
    unlink, failed = Path.unlink, list[Path]()

    def fails_once(path: Path, missing_ok: bool = False) -> None:
        if path == old and not failed:
            failed.append(path)
            raise OSError("no")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", fails_once)
    with following(sqlite_store, folder, index_from_rows=0), viewing(folder) as view:
        until_used(view)  # it has been tried again
        assert failed
        assert len(index_files(folder)) == 1


def test_an_index_that_cannot_be_named_is_deleted(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campus(sqlite_store)
    with replica_of(sqlite_store, tmp_path / "r") as replica:

        def full(_environment: Environment, _number: int) -> None:
            raise lmdb.MapFullError("full")

        monkeypatch.setattr(indexing, "_name", full)
        assert replica.index() == 0
        assert replica.files() == []


def test_a_making_that_cannot_begin_holds_on_to_nothing(sqlite_store: Store, tmp_path: Path) -> None:
    campus(sqlite_store)
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        environment = replica.environment
        real, begun = environment.lmdb, []

        class Full:
            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

            def begin(self, *given: Any, **named: Any) -> Any:
                begun.append(given)
                if len(begun) == 2:  # the first counts the rows
                    raise lmdb.ReadersFullError("full")
                return real.begin(*given, **named)

        environment.lmdb = Full()  # type: ignore[assignment]  # all that is asked of it
        assert replica.index() == 0
        environment.lmdb = real
        assert environment_module._open[environment.folder][1] == 1


def mapped() -> list[str]:
    gc.collect()
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if "/index-" in line]


@pytest.mark.parametrize("gone", ["the index", "the generation"])
def test_a_view_that_nobody_asks_lets_go_of_an_index_that_is_no_more(
    sqlite_store: Store, tmp_path: Path, gone: str
) -> None:
    folder = tmp_path / "r"
    campus(sqlite_store)
    with viewing(folder) as view:
        with following(sqlite_store, folder, index_from_rows=0):
            until_used(view)
        if gone == "the index":
            index_files(folder)[0].unlink()
        else:
            state = SharedState(folder)
            state.withdraw()
            state.close()
        assert mapped()
        view.let_go()
        assert mapped() == []


def test_a_replica_that_has_no_room_leaves_the_index_that_is_made(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, room = tmp_path / "r", 1 << 20
    campus(sqlite_store)
    ended = threading.Event()
    monkeypatch.setattr(indexing, "time", clock(sleep=lambda _seconds: ended.wait(0.5)))
    monkeypatch.setattr(indexing, "_PAGE", 1)  # it takes half a minute
    try:
        with (
            following(sqlite_store, folder, max_bytes=room, index_from_rows=0) as follower,
            viewing(folder, max_bytes=room) as view,
        ):
            sqlite_store.directory.tell(follower.take)
            until(lambda: any(each.name == "follower-index" for each in threading.enumerate()))
            for _ in range(60):
                write(sqlite_store, create(share("n1", "u1")))
                head = write(sqlite_store, remove(share("n1", "u1").key))
                view.let_go()
            begun_s = time.monotonic()
            until(lambda: view.revision() == head)
            assert time.monotonic() - begun_s < 10
    finally:
        ended.set()


@pytest.mark.parametrize("place", [16, 24, 32, 40, 48, 56])
def test_a_damaged_header_is_no_index(sqlite_store: Store, tmp_path: Path, place: int) -> None:
    campus(sqlite_store)
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        with index_file(tmp_path / "r", replica.index()).open("r+b") as opened:
            opened.seek(place)
            opened.write(struct.pack("<Q", (1 << 40) + 1))
        caches = Caches()
        assert len(held(ReplicaSnapshot(replica.environment, "d", caches), "u7")) == 1
        assert caches.index is None


def test_a_thread_that_cannot_be_had_is_no_failure_of_the_follower(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campus(sqlite_store)
    start, refused = threading.Thread.start, []

    def refuses(thread: threading.Thread) -> None:
        if thread.name == "follower-index":
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    def fails(*_given: Any, **_named: Any) -> None:
        raise AssertionError("the follower failed")

    monkeypatch.setattr(threading.Thread, "start", refuses)
    monkeypatch.setattr("authz.replica.follower.log.exception", fails)
    with (
        following(sqlite_store, tmp_path / "r", index_from_rows=0) as follower,
        viewing(tmp_path / "r") as view,
    ):
        until(lambda: bool(refused))
        assert follower.settled.is_set()
        head = write(sqlite_store, create(student("late", "c")))
        until(lambda: view.revision() == head)
    assert len(refused) == 1


def test_a_replica_that_has_become_small_leaves_its_index(sqlite_store: Store, tmp_path: Path) -> None:
    campus(sqlite_store)
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        replica.indexing = Indexing(replica.mutex, lambda: False, from_rows=80)
        replica.indexing.attach(replica.environment)
        assert replica.index() > 0
        head = sqlite_store.directory.head().revision
        write(sqlite_store, *(remove(student(f"u{n}", "c").key) for n in range(8)))
        replica.take(changes_of(sqlite_store, head, 1))
        assert replica.index() == 0
        assert replica.files() == []


def test_who_leaves_a_replica_leaves_the_index_that_is_made(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campus(sqlite_store)
    begun = threading.Event()

    def read_in(_file: Path, *, stopped: Any) -> None:
        begun.set()
        until(stopped)

    monkeypatch.setattr(hash_index, "read_in", read_in)
    with replica_of(sqlite_store, tmp_path / "r") as replica:
        replica.indexing.keep_up()
        assert begun.wait(30)
        with replica.mutex:
            replica.indexing.detach()
        replica.indexing.wait()
        assert replica.files() == []


def test_what_is_too_large_is_told_of_one_replica_and_not_of_the_next(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campus(sqlite_store)
    with replica_of(sqlite_store, tmp_path / "r") as replica:

        def fits(_size_bytes: int) -> bool:
            with replica.mutex:
                replica.indexing.attach(replica.environment)
            monkeypatch.setattr(hash_index, "fits_in_memory", lambda _size_bytes: True)
            return False

        monkeypatch.setattr(hash_index, "fits_in_memory", fits)
        assert replica.index() == 0
        assert replica.index() > 0


def test_a_follower_keeps_its_index_whatever_the_maker_of_the_one_before_it_still_does(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campus(sqlite_store)
    begun, going_on = threading.Event(), threading.Event()

    def waits(file: Path, *, stopped: Any) -> None:
        if not begun.is_set():
            begun.set()
            going_on.wait(30)
        else:
            going_on.set()
            before.indexing.wait()
        read_in(file, stopped=stopped)

    monkeypatch.setattr(hash_index, "read_in", waits)
    with replica_of(sqlite_store, tmp_path / "r") as before:
        before.indexing.keep_up()
        assert begun.wait(30)
        with before.mutex:
            before.indexing.detach()
        after = Replica(before.environment)
        number = after.index()
        assert number > 0
        assert after.files() == [index_file(tmp_path, number).name]
        assert after.index() == number
