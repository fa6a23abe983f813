"""The follower: goes on from where it was, builds anew what it cannot trust, and never serves it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from authz.domain.entities import Course, CourseKey, CourseState
from authz.domain.errors import ErrorReason, UnavailableError
from authz.domain.ids import course_scope
from authz.domain.mutations import LogTail
from authz.domain.tokens import TokenKeys
from authz.replica.environment import UnusableError, acquire_environment, release_environment
from authz.replica.follower import Follower
from authz.replica.shared_state import SharedState
from authz.replica.view import ReplicaView
from authz.replica.writer import apply_changes
from authz.store import Store
from tests.databases import create_sqlite
from tests.replica.conftest import (
    MAX_BYTES,
    execute,
    following,
    generation_of,
    once_served,
    rows_of,
    served,
    viewing,
)
from tests.store.directory import changes_of, create, lesson, open_with, remove, student, touch, user, write
from tests.tokens import signed
from tests.waiting import until


def holds(view: ReplicaView, revision: int) -> bool:
    return once_served(lambda: view.revision() >= revision)


def memberships(view: ReplicaView, name: str, course_id: str) -> int:
    """How many memberships a student has in a course."""
    snapshot = view.snapshot()
    place = snapshot.scope(course_scope(course_id))
    return 0 if place is None else len(snapshot.memberships(user(name), place))


def test_it_begins_with_a_snapshot_and_goes_on_with_every_write(store: Store, tmp_path: Path) -> None:
    write(store, *(create(entity) for entity in lesson("c", "s")))
    with following(store, tmp_path / "r"), viewing(tmp_path / "r") as view:
        assert view.revision() == 1
        assert memberships(view, "maya", "c") == 1
        write(store, create(student("omar", "c")))
        until(lambda: holds(view, 2))
        assert memberships(view, "omar", "c") == 1
        write(store, remove(CourseKey("c")))
        until(lambda: holds(view, 3))
        assert memberships(view, "maya", "c") == 0
        assert {row[0] for row in rows_of(tmp_path / "r")} == {"tombstone"}


def test_it_has_the_key_of_the_databases_tokens(store: Store, store_url: str, tmp_path: Path) -> None:
    write(store, create(Course(id="c")))
    keys, head = TokenKeys(), store.directory.head()
    with following(store, tmp_path / "r"):
        view = ReplicaView(tmp_path / "r", source="test", max_bytes=MAX_BYTES, max_staleness_s=30, keys=keys)
        assert view.snapshot().token == signed(store_url, head)
        assert keys.verify(signed(store_url, head)) == head
        view.close()


def test_a_write_through_another_process_connection_reaches_it(
    store: Store, store_url: str, tmp_path: Path
) -> None:
    other = open_with(store_url)
    with following(store, tmp_path / "r"), viewing(tmp_path / "r") as view:
        write(other, create(Course(id="c")))
        until(lambda: holds(view, 1))
    other.close()


def test_a_restart_goes_on_from_its_revision(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    write(store, create(Course(id="c")))
    with following(store, folder):
        first = generation_of(folder)
    write(store, create(student("maya", "c")))
    with following(store, folder), viewing(folder) as view:
        assert generation_of(folder) == first
        assert memberships(view, "maya", "c") == 1


def test_of_two_followers_one_follows_and_the_other_takes_over(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with viewing(folder) as view:
        with following(store, folder):
            second = following(store, folder)
            second.__enter__()
            write(store, create(Course(id="c")))
            until(lambda: holds(view, 1))
        write(store, create(Course(id="d")))
        until(lambda: holds(view, 2))
        second.__exit__(None, None, None)


def test_a_replica_of_another_database_is_built_anew(sqlite_store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")), create(student("maya", "c")))
    with following(sqlite_store, folder):
        first = generation_of(folder)
    other = open_with(create_sqlite(tmp_path / "other.db"))
    write(other, create(Course(id="c")))
    with viewing(folder) as view, viewing(folder, source="other") as others_view:
        assert memberships(view, "maya", "c") == 1
        with pytest.raises(UnavailableError, match="another database"):
            others_view.snapshot()
        with following(other, folder, source="other"):
            assert generation_of(folder) != first
            assert memberships(others_view, "maya", "c") == 0
            assert others_view.database_id() == other.directory.head().database_id
            with pytest.raises(UnavailableError, match="another database"):
                view.snapshot()
    other.close()


def test_what_was_confirmed_of_one_database_is_void_for_another(sqlite_store: Store, tmp_path: Path) -> None:
    with following(sqlite_store, tmp_path / "r"):
        pass
    state = SharedState(tmp_path / "r")
    state.begin("test")
    assert state.staleness_s() < 30
    state.begin("other")
    assert state.staleness_s() == float("inf")
    state.close()


@pytest.mark.parametrize(
    "history",
    [
        ("UPDATE revisions SET committed_at = committed_at + 1 WHERE revision = 2",),
        (
            "DELETE FROM changes WHERE revision = 2",
            "DELETE FROM revisions WHERE revision = 2",
            "DELETE FROM memberships",
            "UPDATE counter SET revision = 1",
        ),
    ],
    ids=["another second write", "gone back before it"],
)
def test_another_history_of_the_same_database_is_noticed_at_the_start(
    store: Store, store_url: str, tmp_path: Path, history: tuple[str, ...]
) -> None:
    folder = tmp_path / "r"
    write(store, create(Course(id="c")))
    write(store, create(student("maya", "c")))
    with following(store, folder):
        first = generation_of(folder)
    execute(store_url, *history)
    with following(store, folder), viewing(folder) as view:
        until(lambda: generation_of(folder) not in (0, first), "a new replica")
        assert view.revision() == store.directory.head().revision


def test_a_gap_in_the_log_is_noticed_and_built_over(store: Store, store_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    write(store, create(Course(id="c")))
    with following(store, folder):
        first = generation_of(folder)
    write(store, create(student("maya", "c")))
    write(store, create(student("omar", "c")))
    execute(store_url, "DELETE FROM changes WHERE revision = 2", "DELETE FROM revisions WHERE revision = 2")
    with following(store, folder), viewing(folder) as view:
        until(lambda: generation_of(folder) not in (0, first), "a new replica")
        until(lambda: served(view))
        assert memberships(view, "maya", "c") == memberships(view, "omar", "c") == 1


def test_changes_that_do_not_follow_on_change_nothing(sqlite_store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with following(sqlite_store, folder):
        pass
    for number in range(3):
        write(sqlite_store, create(Course(id=f"c{number}")))
    log = changes_of(sqlite_store, 0, 10)
    environment = acquire_environment(folder / str(generation_of(folder)), max_bytes=MAX_BYTES)
    try:
        for wrong in (log[1:], (log[0], log[2]), (log[0], log[0])):
            with pytest.raises(UnusableError):
                apply_changes(environment, wrong)
            assert environment.state().revision == 0
        assert apply_changes(environment, log) == 3
    finally:
        release_environment(environment)


@pytest.mark.parametrize("size", [0, 1, 4096, 8192, -1, -4096], ids=str)
def test_a_file_that_is_cut_off_is_never_opened_and_built_anew(
    sqlite_store: Store, tmp_path: Path, size: int
) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")), *(create(student(f"u{n}", "c")) for n in range(500)))
    with following(sqlite_store, folder):
        first = generation_of(folder)
    data = folder / str(first) / "data.mdb"
    os.truncate(data, size if size >= 0 else data.stat().st_size + size)
    with viewing(folder) as view, pytest.raises(UnavailableError) as caught:
        view.snapshot()
    assert caught.value.reason is ErrorReason.REPLICA_NOT_READY
    with following(sqlite_store, folder), viewing(folder) as view:
        assert generation_of(folder) != first
        assert memberships(view, "u499", "c") == 1
        assert not (folder / str(first)).exists()


def test_a_file_of_noise_is_refused_and_built_anew(sqlite_store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with following(sqlite_store, folder):
        first = generation_of(folder)
    (folder / str(first) / "data.mdb").write_bytes(os.urandom(65536))
    with pytest.raises(UnusableError):
        acquire_environment(folder / str(first), max_bytes=MAX_BYTES)
    with following(sqlite_store, folder):
        assert generation_of(folder) != first


def test_without_a_follower_there_is_nothing_to_answer_from(tmp_path: Path) -> None:
    with viewing(tmp_path / "r") as view:
        for call in (view.snapshot, view.revision, view.database_id):
            with pytest.raises(UnavailableError) as caught:
                call()
            assert caught.value.reason is ErrorReason.REPLICA_NOT_READY
        assert view.staleness_s() == float("inf")


def test_a_place_moves_with_its_course_and_a_role_on_the_platform_comes_and_goes(
    sqlite_store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")), create(student("maya", "c")))
    with following(sqlite_store, folder), viewing(folder) as view:
        before = view.snapshot().scope(course_scope("c"))
        assert before is not None
        assert before.state.course_state is CourseState.DRAFT
        write(sqlite_store, touch(Course(id="c", state=CourseState.ACTIVE)))
        until(lambda: holds(view, 2))
        after = view.snapshot().scope(course_scope("c"))
        assert after is not None
        assert after.state.course_state is CourseState.ACTIVE


def test_a_follower_that_is_stopped_before_it_began_ends(sqlite_store: Store, tmp_path: Path) -> None:
    with following(sqlite_store, tmp_path / "r"):
        waiting = Follower(sqlite_store.directory, tmp_path / "r", source="test", max_bytes=MAX_BYTES)
        waiting.stop()
        waiting.run()
        assert waiting.initialized.is_set()


def test_a_connection_that_a_stop_aborts_is_not_logged_as_a_fault(
    sqlite_store: Store, tmp_path: Path
) -> None:
    follower = Follower(sqlite_store.directory, tmp_path / "r", source="test", max_bytes=MAX_BYTES)
    faults = iter(("before the stop", "by the stop"))

    def aborted(after: int, limit: int) -> LogTail:
        fault = next(faults)
        if fault == "by the stop":
            follower.stop()
        raise UnavailableError(ErrorReason.STORE_UNAVAILABLE, fault)

    sqlite_store.directory.follow = aborted  # type: ignore[method-assign]
    with capture_logs() as logged:
        follower.run()
    assert [line["error"] for line in logged if line["event"] == "database away"] == ["before the stop"]


def test_a_view_that_nobody_asks_holds_no_state_but_the_last(sqlite_store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")))
    with following(sqlite_store, folder), viewing(folder) as view:
        assert view.snapshot() is view.snapshot()
        view.release_stale_snapshot()
        environment = acquire_environment(folder / str(generation_of(folder)), max_bytes=MAX_BYTES)

        def states_held() -> int:
            # A reader in waiting has a dash where the number of its state was.
            return sum(line.split()[-1].isdigit() for line in environment.lmdb.readers().splitlines()[1:])

        # The follower holds one, too, while it reads.
        until(lambda: states_held() == 1)
        write(sqlite_store, create(Course(id="d")))
        until(lambda: holds(view, 2))
        until(lambda: states_held() == 1)
        view.release_stale_snapshot()
        until(lambda: states_held() == 0)
        release_environment(environment)
