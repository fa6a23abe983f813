"""A replica that is damaged, or has no room: built anew where that helps, and never waited for in vain."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import lmdb
import msgspec
import pytest
from structlog.testing import capture_logs

from authz.domain.entities import Course
from authz.domain.errors import ErrorReason, UnavailableError
from authz.domain.ids import course_scope
from authz.domain.mutations import LogTail, Mutation
from authz.domain.origin import Origin
from authz.replica.environment import Environment, UnusableError, acquire_environment, release_environment
from authz.replica.folder import FILE_MODE
from authz.replica.follower import _RETRY_S, Follower
from authz.replica.generations import build_replica, copy_generation
from authz.replica.layout import FORMAT
from authz.replica.shared_state import SharedState
from authz.store import Store
from tests.replica.conftest import MAX_BYTES, following, generation_of, once_served, rebuilt, viewing
from tests.replica.test_histories import members
from tests.store.directory import create, remove, student, write
from tests.waiting import until

_PAGE = 4096
_STUDENTS = 900


def enrol(store: Store, names: range) -> None:
    batch: list[Mutation] = [create(student(f"u{number}x", "c")) for number in names]
    store.directory.import_batch(batch, offset=0, origin=Origin(""))


def test_a_damaged_page_that_the_follower_meets_has_the_replica_built_anew(
    sqlite_store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")))
    enrol(sqlite_store, range(0, _STUDENTS, 2))
    with following(sqlite_store, folder):
        first = generation_of(folder)
    file = folder / str(first) / "data.mdb"
    data = bytearray(file.read_bytes())
    for page in range(2, len(data) // _PAGE):
        data[page * _PAGE + 10 : page * _PAGE + 12] = b"\0\0"  # no kind of page has no flags
    file.write_bytes(data)
    enrol(sqlite_store, range(1, _STUDENTS, 2))
    with following(sqlite_store, folder), viewing(folder) as view:
        until(lambda: rebuilt(folder, view, first), "a new replica")
        assert members(view, "u0x", "u1x", "u899x") == ["u0x", "u1x", "u899x"]


def test_a_replica_without_room_is_not_waited_for_and_not_served(sqlite_store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")))
    enrol(sqlite_store, range(10_000))
    follower = Follower(sqlite_store.directory, folder, source="test", max_bytes=1 << 18)

    running = threading.Thread(target=follower.run)
    running.start()
    try:
        assert follower.initialized.wait(30)
        with viewing(folder) as view, pytest.raises(UnavailableError):
            view.snapshot()
    finally:
        follower.stop()
        running.join(30)
    with following(sqlite_store, folder), viewing(folder) as view:
        assert members(view, "u9999x") == ["u9999x"]


def test_what_lmdb_passes_over_fails_the_build(sqlite_store: Store, tmp_path: Path) -> None:
    write(sqlite_store, create(Course(id="c")))
    with sqlite_store.directory.dump() as dump:
        build_replica(tmp_path / "1", dump, max_bytes=MAX_BYTES)
        # A record that is there already is one that cannot be appended.
        with pytest.raises(UnusableError, match="1 records could not be appended"):
            build_replica(tmp_path / "1", dump, max_bytes=MAX_BYTES)


_GROW = """
import sys
import lmdb
environment = lmdb.open(sys.argv[1], map_size=1 << 28, max_dbs=16)
meta = environment.open_db(b"meta")
for grow in (True, False):
    with environment.begin(write=True) as transaction:
        transaction.put(b"x", bytes(1 << 22), db=meta) if grow else transaction.delete(b"x", db=meta)
"""


def test_a_file_that_another_server_let_grow_beyond_the_bound_here_is_opened_anew(
    sqlite_store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")), create(student("maya", "c")))
    with following(sqlite_store, folder, max_bytes=1 << 20), viewing(folder, max_bytes=1 << 20) as view:
        assert members(view, "maya") == ["maya"]
        first = generation_of(folder)
        subprocess.run([sys.executable, "-c", _GROW, folder / str(first)], check=True)
        write(sqlite_store, create(student("omar", "c")))
        # Until the view lets go of the file, each attempt of the follower finds it open with the map it had.
        time.sleep(4 * _RETRY_S)

        def caught_up() -> bool:
            view.release_stale_snapshot()
            return once_served(lambda: view.cleared() == 1 and members(view, "omar") == ["omar"])

        until(caught_up, "omar")
        assert generation_of(folder) == first


def test_a_view_lets_go_of_a_generation_that_is_no_more(sqlite_store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")), create(student("maya", "c")))
    with viewing(folder) as view:
        with following(sqlite_store, folder):
            assert members(view, "maya") == ["maya"]
        first = folder / str(generation_of(folder))
        state = SharedState(folder)
        state.withdraw()
        state.close()
        assert is_open(first)
        view.release_stale_snapshot()
        assert not is_open(first)
        with following(sqlite_store, folder):
            assert members(view, "maya") == ["maya"]


def is_open(folder: Path) -> bool:
    """Whether this process has the replica's file mapped."""
    return str(folder / "data.mdb") in Path("/proc/self/maps").read_text()


def _with_header(generation: Path, change: Callable[[bytes], bytes]) -> None:
    environment = acquire_environment(generation, max_bytes=MAX_BYTES)
    try:
        with environment.lmdb.begin(write=True, db=environment.meta) as transaction:
            transaction.put(b"revision", change(bytes(transaction.get(b"revision") or b"")))
    finally:
        release_environment(environment)


@pytest.mark.parametrize(
    "change",
    [
        lambda header: (FORMAT + 1).to_bytes(8, "little") + header[8:],
        lambda header: (FORMAT + 1).to_bytes(8, "little"),
        lambda header: header[:-1],
        lambda header: b"",
    ],
    ids=["another format", "another format with a shorter header", "cut off", "empty"],
)
def test_a_view_refuses_what_it_cannot_read_and_does_not_keep_it_open(
    sqlite_store: Store, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")), create(student("maya", "c")))
    with following(sqlite_store, folder):
        first = folder / str(generation_of(folder))
    _with_header(first, change)
    with viewing(folder) as view:
        for _ in range(2):
            with pytest.raises(UnavailableError) as caught:
                view.snapshot()
            assert caught.value.reason is ErrorReason.REPLICA_NOT_READY
        assert not is_open(first)
        with following(sqlite_store, folder):
            assert members(view, "maya") == ["maya"]


@pytest.mark.parametrize("fault", [lmdb.CorruptedError("damaged"), MemoryError()], ids=repr)
def test_whatever_goes_wrong_while_a_replica_is_opened_does_not_keep_it_open(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def broken(_: Environment) -> NoReturn:
        raise fault

    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")))
    with following(sqlite_store, folder):
        first = folder / str(generation_of(folder))
    for part in ("require_usable", "state", "token_key"):
        with viewing(folder) as view, monkeypatch.context() as patched:
            patched.setattr(Environment, part, broken)
            with pytest.raises((UnavailableError, MemoryError)) as caught:
                view.snapshot()
            assert isinstance(caught.value, UnavailableError) == isinstance(fault, lmdb.Error)
            assert not is_open(first)


def test_a_rewrite_that_the_database_has_lost_the_changes_for_ends_in_a_new_replica(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, folder = sqlite_store.directory, tmp_path / "r"
    follow, dump = directory.follow, directory.dump

    def as_restored(after: int, limit: int) -> LogTail:
        tail = follow(after, 0)
        return msgspec.structs.replace(tail, head=tail.after, changes=())

    def copied(*given: Any, **named: Any) -> Environment:
        """A copy that another commit comes after, which a restore of the database then undoes."""
        made = copy_generation(*given, **named)
        directory.subscribe(follower.apply_local_commit)
        write(sqlite_store, create(Course(id="d")))
        monkeypatch.setattr(directory, "follow", as_restored)
        return made

    def dumped() -> Any:
        monkeypatch.setattr(directory, "follow", follow)
        return dump()

    write(sqlite_store, create(Course(id="c")), create(student("maya", "c")))
    with following(sqlite_store, folder) as follower, viewing(folder) as view:
        first = generation_of(folder)
        monkeypatch.setattr("authz.replica.follower.copy_generation", copied)
        monkeypatch.setattr(directory, "dump", dumped)
        _with_header(folder / str(first), lambda header: header[:-16] + bytes((1,)) + bytes(15))
        follower.wake()
        until(lambda: rebuilt(folder, view, first), "a new replica")
        assert members(view, "maya") == ["maya"]


@pytest.mark.parametrize("error", [RuntimeError("as if it was killed"), OSError("as if it was in use")])
def test_a_replica_is_not_cleared_of_the_erased_before_the_old_file_is_deleted(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A follower that is killed before it deletes the file leaves that to the next."""
    folder, cleared, rmtree = tmp_path / "r", list[int](), shutil.rmtree

    def interrupted(path: Path, **named: Any) -> None:
        cleared.append(view.cleared())
        if len(cleared) > 1:
            rmtree(path, **named)
        elif not (isinstance(error, OSError) and named.get("ignore_errors")):
            raise error

    write(sqlite_store, create(Course(id="c")))
    with following(sqlite_store, folder) as follower, viewing(folder) as view:
        first = folder / str(generation_of(folder))
        monkeypatch.setattr(shutil, "rmtree", interrupted)
        _with_header(first, lambda header: header[:-16] + bytes((1,)) + bytes(15))
        follower.wake()
        until(lambda: view.cleared() == 1, "a cleared replica")
        monkeypatch.undo()
        assert {*cleared} == {0}
        (left,) = (each for each in folder.iterdir() if each.is_dir())
        assert left.name == str(generation_of(folder))
        assert {each.stat().st_mode & 0o777 for each in left.iterdir()} == {FILE_MODE}


def test_a_fault_that_lasts_is_logged_once_and_so_is_its_end(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = Counter[str]()
    follow = sqlite_store.directory.follow

    def failing(kind: type[Exception]) -> Callable[[int, int], NoReturn]:
        def fail(after: int, limit: int) -> NoReturn:
            tries[kind.__name__] += 1
            raise kind(f"try {tries[kind.__name__]}")

        return fail

    with following(sqlite_store, tmp_path / "r") as follower, capture_logs() as logged:
        for kind in (RuntimeError, KeyError):
            monkeypatch.setattr(sqlite_store.directory, "follow", failing(kind))
            follower.wake()
            until(lambda kind=kind: tries[kind.__name__] >= 3, kind.__name__)  # type: ignore[misc]  # bound now
        monkeypatch.setattr(sqlite_store.directory, "follow", follow)
        until(lambda: logged[-1]["event"] == "follower recovered", "recovered")
    events = [each["event"] for each in logged]
    assert events == ["follower failed", "follower failed", "follower recovered"]


def test_a_build_ends_when_its_server_is_stopped(sqlite_store: Store, tmp_path: Path) -> None:
    write(sqlite_store, create(Course(id="c")))
    enrol(sqlite_store, range(10_000))
    asked: list[int] = []

    def stopped() -> bool:
        asked.append(1)
        return len(asked) > 3

    with sqlite_store.directory.dump() as dump, pytest.raises(UnavailableError, match="was stopped"):
        build_replica(tmp_path / "1", dump, max_bytes=MAX_BYTES, stopped=stopped)
    with pytest.raises(UnusableError, match="was not finished"):
        acquired(tmp_path / "1")


def acquired(folder: Path) -> None:
    """Open a replica as who is to serve it does."""
    environment = acquire_environment(folder, max_bytes=MAX_BYTES)
    try:
        environment.require_usable()
    finally:
        release_environment(environment)


def written_over(file: Path, data: bytes) -> None:
    """In place, as `cp` does; never shorter meanwhile."""
    with file.open("r+b") as opened:
        opened.write(data)


def test_an_older_copy_of_the_file_put_in_its_place_has_the_replica_built_anew(
    sqlite_store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")), create(student("maya", "c")))
    write(sqlite_store, create(Course(id="d")))
    with following(sqlite_store, folder) as follower, viewing(folder) as view:
        sqlite_store.directory.subscribe(follower.apply_local_commit)
        first = generation_of(folder)
        file = folder / str(first) / "data.mdb"
        before = file.read_bytes()
        write(sqlite_store, remove(student("maya", "c").key))
        for name in "ef":
            write(sqlite_store, create(Course(id=name)))
        written_over(file, before)
        until(lambda: rebuilt(folder, view, first), "a new replica")
        assert members(view, "maya") == []


@pytest.mark.parametrize("damage", [bytes(4096), bytes(range(256)) * 16])
def test_a_damaged_page_of_state_has_the_replica_built_anew(
    sqlite_store: Store, tmp_path: Path, damage: bytes
) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")), create(student("maya", "c")))
    with following(sqlite_store, folder), viewing(folder) as view:
        assert members(view, "maya") == ["maya"]
        written_over(folder / "state", damage)
        until(lambda: once_served(lambda: members(view, "maya") == ["maya"]), "a new replica")


def test_what_somebody_else_keeps_in_the_folder_stays(sqlite_store: Store, tmp_path: Path) -> None:
    report = tmp_path / "r" / "2024" / "report.txt"
    report.parent.mkdir(parents=True)
    report.write_text("kept")
    with following(sqlite_store, tmp_path / "r"):
        pass
    assert report.read_text() == "kept"


def test_a_call_that_has_begun_reads_its_state_to_the_end_while_the_replica_is_rebuilt(
    sqlite_store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")))
    with following(sqlite_store, folder) as follower, viewing(folder) as view:
        first = generation_of(folder)
        begun = view.snapshot()
        SharedState(folder).withdraw()
        follower.wake()
        until(lambda: rebuilt(folder, view, first), "a new replica")
        assert begun.scope(course_scope("c")) is not None
        del begun
        assert not is_open(folder / str(first))
