"""A replica that is damaged, or has no room: built anew where that helps, and never waited for in vain."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from authz.domain.entities import Course
from authz.domain.errors import UnavailableError
from authz.domain.mutations import Mutation
from authz.replica.build import build_replica
from authz.replica.environment import UnusableError
from authz.replica.follower import Follower
from authz.store import Store
from tests.replica.conftest import MAX_BYTES, following, generation_of, until, viewing
from tests.replica.test_histories import members, served
from tests.store.directory import create, student, write

_PAGE = 4096
_STUDENTS = 900


def enrol(store: Store, names: range) -> None:
    batch: list[Mutation] = [create(student(f"u{number}x", "c")) for number in names]
    store.directory.import_batch(batch, offset=0, actor="", request_id="", reason="")


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
        until(lambda: served(view) and generation_of(folder) != first, "a new replica")
        assert members(view, "u0x", "u1x", "u899x") == ["u0x", "u1x", "u899x"]


def test_a_replica_without_room_is_not_waited_for_and_not_served(sqlite_store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")))
    enrol(sqlite_store, range(10_000))
    follower = Follower(sqlite_store.directory, folder, source="test", max_bytes=1 << 18)

    running = threading.Thread(target=follower.run)
    running.start()
    try:
        assert follower.settled.wait(30)
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
        with pytest.raises(UnusableError, match="1 records did not fit"):
            build_replica(tmp_path / "1", dump, max_bytes=MAX_BYTES)
