"""Warm-up: the replica is in the page cache before the first check after a reboot. And what is left in the
folder after a copy that fails, or a new replica."""

from __future__ import annotations

import mmap
import os
import resource
import stat
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from authz.replica import generations
from authz.replica.environment import release_environment
from authz.replica.generations import (
    build_replica,
    copy_generation,
    delete_generations,
    open_generation,
    warm_up,
)
from authz.store import Store
from tests.replica.conftest import MAX_BYTES, following, generation_of
from tests.store.directory import create, lesson, write
from tests.waiting import until

SIZE_BYTES = 5 << 20


def evict(file: Path) -> None:
    """Drop a file from the page cache, if it is there."""
    if file.exists():
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def store_file(path: Path, size_bytes: int = SIZE_BYTES) -> Path:
    with path.open("wb") as file:
        file.write(os.urandom(size_bytes))
        file.flush()
        os.fsync(file.fileno())
    return path


def pages_read_from_disk(file: Path) -> int:
    """How often a look at each page of a file had to wait for the disk."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        mapped.madvise(mmap.MADV_RANDOM)  # no page is read because of another
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_majflt
        assert sum(mapped[start] for start in range(0, len(mapped), mmap.PAGESIZE)) > 0
        return resource.getrusage(resource.RUSAGE_THREAD).ru_majflt - before


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where what is evicted has to be read again."""
    probe = store_file(tmp_path / "probe")
    evict(probe)
    if not pages_read_from_disk(probe):
        pytest.skip("this file system is in memory: nothing of it is ever read from a disk")
    return tmp_path


def test_what_is_read_in_is_in_memory_to_its_last_page(folder: Path) -> None:
    file = store_file(folder / "data.mdb", SIZE_BYTES + 1)
    evict(file)
    warm_up(file, stopped=lambda: False)
    assert pages_read_from_disk(file) == 0


def test_a_file_that_takes_more_than_half_of_the_memory_is_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = store_file(folder / "data.mdb")
    evict(file)
    monkeypatch.setattr(generations, "_memory_bytes", lambda: 2 * SIZE_BYTES - 1)
    warm_up(file, stopped=lambda: False)
    assert pages_read_from_disk(file) > 0
    evict(file)
    monkeypatch.setattr(generations, "_memory_bytes", lambda: 2 * SIZE_BYTES)
    warm_up(file, stopped=lambda: False)
    assert pages_read_from_disk(file) == 0


def test_it_reads_no_further_once_it_is_stopped(tmp_path: Path) -> None:
    stops = iter((False, True))
    # For a third part of the file there is no answer, which would be an error.
    warm_up(store_file(tmp_path / "data.mdb"), stopped=lambda: next(stops))
    assert list(stops) == []


def test_a_file_that_is_gone_or_empty_is_nobodys_failure(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("empty", "gone"):
        evict(tmp_path / name)
        warm_up(tmp_path / name, stopped=lambda: False)


def test_a_replica_is_read_in_when_it_is_found(store: Store, folder: Path) -> None:
    write(store, *(create(entity) for entity in lesson("c", "s")))
    with following(store, folder / "r"):
        file = folder / "r" / str(generation_of(folder / "r")) / "data.mdb"
    with file.open("ab") as opened:
        opened.truncate(SIZE_BYTES)  # else it is so short that all of it comes with its first page
        os.fsync(opened.fileno())
    evict(file)
    with following(store, folder / "r"):
        until(lambda: all(each.name != "warm-up" for each in threading.enumerate()))
        assert pages_read_from_disk(file) == 0


def test_a_copy_that_fails_leaves_no_part_of_itself(tmp_path: Path) -> None:
    def copy(folder: str, *, compact: bool) -> None:
        assert compact
        Path(folder, "data.mdb").write_bytes(b"user:maya")
        raise OSError("the disk is full")

    environment: Any = SimpleNamespace(lmdb=SimpleNamespace(copy=copy))
    with pytest.raises(OSError, match="the disk is full"):
        copy_generation(tmp_path, environment, max_bytes=SIZE_BYTES)
    assert [*tmp_path.iterdir()] == []


def test_a_copy_is_readable_by_its_owner_alone(sqlite_store: Store, tmp_path: Path) -> None:
    with sqlite_store.directory.dump() as dump:
        build_replica(tmp_path / "1", dump, max_bytes=MAX_BYTES)
    original, before = open_generation(tmp_path, 1, max_bytes=MAX_BYTES), os.umask(0)
    try:
        copy = copy_generation(tmp_path, original, max_bytes=MAX_BYTES)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.rglob("*.mdb")} == {0o600}
    for each in (original, copy):
        release_environment(each)


def test_generations_are_deleted_and_nothing_that_is_none(tmp_path: Path) -> None:
    def folder_of(name: str, *files: str) -> None:
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()

    folder_of("1", "data.mdb", "lock.mdb")
    folder_of("2")
    folder_of("3", "data.mdb", "lock.mdb")
    folder_of("4", "data.mdb", "notes")
    folder_of("copies", "data.mdb", "lock.mdb")
    (tmp_path / "notes").touch()
    (tmp_path / "5").touch()
    delete_generations(tmp_path, keep="3")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["3", "4", "5", "copies", "notes"]
