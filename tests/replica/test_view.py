"""Which folder and which state of it a view reads, what it says when it has none, and what it leaves."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from authz.domain.entities import Course
from authz.domain.errors import ErrorReason, UnavailableError
from authz.replica.shared_state import CONFIRMED_AT, GENERATION, SharedState
from authz.store import Store
from tests.databases import create_sqlite
from tests.replica.conftest import away, following, reason_of, served, viewing
from tests.replica.test_histories import members
from tests.replica.test_required import acknowledged
from tests.store.directory import create, open_with, remove, student, write

MAYA = student("maya", "c")


def test_a_view_leaves_a_folder_that_was_deleted_while_nobody_followed_it(
    sqlite_store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")), create(MAYA))
    with viewing(folder) as view:
        with following(sqlite_store, folder):
            assert members(view, "maya") == ["maya"]
        shutil.rmtree(folder)
        write(sqlite_store, remove(MAYA.key))
        with following(sqlite_store, folder):
            view.release_stale_snapshot()
            assert members(view, "maya") == []


def test_a_write_is_required_of_the_folder_that_replaced_a_deleted_one(
    sqlite_store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")), create(MAYA))
    with viewing(folder) as view:
        with following(sqlite_store, folder):
            assert members(view, "maya") == ["maya"]
        shutil.rmtree(folder)
        with following(sqlite_store, folder), viewing(folder) as other, away(sqlite_store):
            assert members(other, "maya") == ["maya"]
            write(sqlite_store, remove(MAYA.key))
            assert not acknowledged(view, sqlite_store)
            assert reason_of(other) is ErrorReason.TOO_STALE


def test_what_the_replica_holds_may_be_required_of_it(sqlite_store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")))
    with following(sqlite_store, folder), viewing(folder) as view:
        view.require(sqlite_store.directory.head())
        assert served(view)


def test_a_replica_that_cannot_be_read_is_withdrawn_when_a_write_is_required_of_it(
    sqlite_store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")))
    with following(sqlite_store, folder):
        pass
    with viewing(folder) as view, closing(SharedState(folder)) as state, capture_logs() as logged:
        state.words[GENERATION] = 7
        view.require(sqlite_store.directory.head())
        assert state.generation == 0
    assert [line["event"] for line in logged] == ["replica not readable"]
    assert "the replica is being built" in logged[0]["cause"]


def test_a_view_is_of_the_database_that_is_followed_now(sqlite_store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with closing(open_with(create_sqlite(tmp_path / "other.db"))) as other, viewing(folder) as view:
        for store in (sqlite_store, other):
            write(store, create(Course(id="c")))
            with following(store, folder):
                assert view.database_id() == store.directory.head().database_id


def test_a_view_without_a_replica_makes_none(tmp_path: Path) -> None:
    with viewing(tmp_path / "r") as view, closing(SharedState(tmp_path / "r")) as state:
        state.begin("test")  # as a follower does before it builds the first
        with pytest.raises(UnavailableError) as caught:
            view.database_id()
        assert caught.value.reason is ErrorReason.REPLICA_NOT_READY
        assert state.generation == 0
    assert not [*(tmp_path / "r").glob("[0-9]*")]


@pytest.mark.parametrize(("max_staleness_s", "allowed"), [(0.0, "0"), (0.00001, "0.00001")])
def test_a_refusal_says_how_stale_the_replica_is_and_may_be(
    sqlite_store: Store, tmp_path: Path, max_staleness_s: float, allowed: str
) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")))
    with following(sqlite_store, folder):
        pass
    with viewing(folder, max_staleness_s=max_staleness_s) as view, closing(SharedState(folder)) as state:
        with pytest.raises(
            UnavailableError, match=rf"for 0 s, and {allowed} s are allowed \(AUTHZ_MAX_STALENESS_S\)"
        ) as caught:
            view.snapshot()
        assert caught.value.reason is ErrorReason.TOO_STALE
        assert caught.value.metadata == {"limit_s": allowed}
        state.words[CONFIRMED_AT] = 0  # as after a start of the machine
        assert reason_of(view) is ErrorReason.REPLICA_NOT_READY


def test_a_view_that_is_closed_holds_nothing_open(sqlite_store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")))
    with viewing(folder) as view, following(sqlite_store, folder):
        assert served(view)
    assert str(folder) not in Path("/proc/self/maps").read_text()
