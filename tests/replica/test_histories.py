"""Two histories of one database, and two databases: what is of the one never answers for the other."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from authz.domain.entities import Course
from authz.domain.errors import ErrorReason, OutOfRangeError, UnavailableError
from authz.domain.ids import course_scope
from authz.domain.tokens import ConsistencyToken
from authz.replica.follower import Follower
from authz.replica.shared_state import SharedState, uptime_ns
from authz.replica.view import ReplicaView
from authz.store import Store
from tests.databases import create_sqlite
from tests.replica.conftest import (
    MAX_BYTES,
    away,
    execute,
    following,
    generation_of,
    once_served,
    rebuilt,
    served,
    viewing,
)
from tests.store.directory import Clock, create, open_with, remove, student, user, write
from tests.waiting import until

_BOOT_WORD = 0


def members(view: ReplicaView, *names: str) -> list[str]:
    """Who of them is in the course `c`."""
    snapshot = view.snapshot()
    place = snapshot.scope(course_scope("c"))
    return [] if place is None else [name for name in names if snapshot.memberships(user(name), place)]


def rewrite(url: str, difference: str = "nonce = nonce - 1") -> None:
    """Give the database another second revision, without maya, and a third: as a standby that was behind
    would, once it has taken over. All at once, so that whoever follows meets no state between.

    Its time is the same, as while a clock is behind the log's, unless that is the `difference`."""
    execute(
        url,
        f"UPDATE revisions SET {difference} WHERE revision = 2",  # noqa: S608  of this file
        "DELETE FROM memberships",
        "INSERT INTO revisions (revision, actor, reason, request_id, committed_at)"
        " SELECT 3, '', '', '', committed_at + 1 FROM revisions WHERE revision = 2",
        "INSERT INTO changes (revision, position, kind, operation, mutation)"
        " SELECT 3, position, kind, 'TOUCH', mutation FROM changes WHERE revision = 1",
        "UPDATE counter SET revision = 3",
    )


def test_another_history_is_noticed_while_it_is_followed(
    store: Store, store_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    write(store, create(Course(id="c")))
    write(store, create(student("maya", "c")))
    with following(store, folder), viewing(folder) as view:
        assert members(view, "maya") == ["maya"]
        first = generation_of(folder)
        rewrite(store_url)
        until(lambda: rebuilt(folder, view, first), "a new replica")
        assert view.revision() == 3
        assert members(view, "maya") == []


@pytest.mark.parametrize("difference", ["nonce = nonce - 1", "committed_at = committed_at + 1000"])
def test_a_log_is_not_read_on_in_another_history(store: Store, store_url: str, difference: str) -> None:
    write(store, create(Course(id="c")))
    before = store.directory.head()
    write(store, create(student("maya", "c")))
    token = store.directory.head()
    rewrite(store_url, difference)
    assert len(store.directory.read_log(before, 0, 10).parts) == 2
    with pytest.raises(OutOfRangeError, match="history that this database has left") as caught:
        store.directory.read_log(token, 0, 10)
    assert caught.value.reason is ErrorReason.TOKEN_EXPIRED


def test_time_does_not_go_back_from_revision_to_revision(store_url: str) -> None:
    clock = Clock()
    store = open_with(store_url, clock)
    write(store, create(Course(id="c")))
    first = store.directory.head()
    clock.now -= 1_000_000
    write(store, create(Course(id="d")))
    second = store.directory.head()
    store.close()
    assert second.committed_at == first.committed_at
    assert second.includes(first)
    assert not first.includes(second)


@pytest.mark.parametrize(
    ("other", "included"),
    [
        (ConsistencyToken("a", 7, 70), True),
        (ConsistencyToken("a", 6, 60), True),
        (ConsistencyToken("a", 6), True),
        (ConsistencyToken("a", 8, 80), False),
        (ConsistencyToken("a", 6, 71), False),
        (ConsistencyToken("b", 6, 60), False),
        (ConsistencyToken("a", 7, 70, 700), True),
        (ConsistencyToken("a", 7, 70, 701), False),
        (ConsistencyToken("a", 6, 70, 600), True),
    ],
)
def test_a_state_includes_what_came_before_it_in_its_own_history(
    other: ConsistencyToken, included: bool
) -> None:
    assert ConsistencyToken("a", 7, 70, 700).includes(other) is included


def test_a_folder_kept_for_another_database_is_not_served_until_it_is_free(
    sqlite_store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")), create(student("maya", "c")))
    other = open_with(create_sqlite(tmp_path / "other.db"))
    write(other, create(Course(id="c")), create(student("omar", "c")))
    with viewing(folder, source="other") as view:
        with following(sqlite_store, folder):
            late = following(other, folder, source="other")
            late.__enter__()
            with pytest.raises(UnavailableError, match="AUTHZ_REPLICA_DIR") as caught:
                view.snapshot()
            assert caught.value.reason is ErrorReason.REPLICA_NOT_READY
        until(lambda: served(view), "the other database's replica")
        assert members(view, "maya", "omar") == ["omar"]
        late.__exit__(None, None, None)
    other.close()


def test_what_was_never_confirmed_since_the_machine_started_is_not_served(
    sqlite_store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")), create(student("maya", "c")))
    with following(sqlite_store, folder):
        pass
    write(sqlite_store, remove(student("maya", "c").key))
    state = SharedState(folder)
    state.words[_BOOT_WORD] += 1  # as another boot left it
    state.close()
    # However long the bound is: a machine has always been up for less than some.
    with (
        away(sqlite_store, followed=False),
        following(sqlite_store, folder),
        viewing(folder, max_staleness_s=1e9) as view,
        pytest.raises(UnavailableError),
    ):
        view.snapshot()


@pytest.mark.parametrize("as_of", [-1_000_000_000, 1])
def test_times_of_another_boot_are_void_also_before_anybody_follows(
    sqlite_store: Store, tmp_path: Path, as_of: int
) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")), create(student("maya", "c")))
    with following(sqlite_store, folder):
        pass
    state = SharedState(folder)
    state.words[_BOOT_WORD] += 1
    state.confirm(uptime_ns() + as_of)
    state.close()
    with viewing(folder) as view, pytest.raises(UnavailableError):
        view.snapshot()


def test_a_time_that_is_still_to_come_is_of_another_boot(sqlite_store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")), create(student("maya", "c")))
    with following(sqlite_store, folder):
        pass
    state = SharedState(folder)
    state.confirm(uptime_ns() + 3_600_000_000_000)
    assert state.staleness_s() == float("inf")
    state.close()
    with viewing(folder) as view, pytest.raises(UnavailableError):
        view.snapshot()


def test_a_follower_that_waits_for_the_database_does_not_hold_up_what_is_committed(
    sqlite_store: Store, tmp_path: Path
) -> None:
    store, folder = sqlite_store, tmp_path / "r"
    write(store, create(Course(id="c")))
    with following(store, folder) as follower, viewing(folder) as view:
        store.directory.subscribe(follower.apply_local_commit)
        follow, asked = store.directory.follow, list[int]()
        answers: list[bool] = []

        def slow(after: int, limit: int) -> object:
            asked.append(after)
            until(lambda: bool(answers), "an answer")
            return follow(after, limit)

        store.directory.follow = slow  # type: ignore[method-assign, assignment]
        follower.wake()
        until(lambda: bool(asked), "the follower to ask")
        write(store, create(student("maya", "c")))
        assert members(view, "maya") == ["maya"]
        answers.append(True)
        write(store, create(student("omar", "c")))
        until(lambda: members(view, "omar") == ["omar"], "omar")


def test_a_listener_that_fails_does_not_fail_the_write(store: Store) -> None:
    def failing(committed: object) -> NoReturn:
        raise OSError("a stale file handle")

    store.directory.subscribe(failing)
    assert [write(store, create(Course(id=name))) for name in "ab"] == [1, 2]


def test_what_is_taken_while_the_folder_cannot_be_read_comes_by_the_log(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, folder = sqlite_store, tmp_path / "r"
    write(store, create(Course(id="c")))
    with following(store, folder) as follower, viewing(folder) as view:
        store.directory.subscribe(follower.apply_local_commit)

        def unreadable(_self: object) -> NoReturn:
            raise OSError("a stale file handle")

        with monkeypatch.context() as patch:
            patch.setattr("authz.replica.environment.Environment.require_there", unreadable)
            write(store, create(student("maya", "c")))
        until(lambda: members(view, "maya") == ["maya"], "maya")


def test_a_follower_of_a_folder_in_the_way_goes_on_once_it_is_gone(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.write_text("a file")
    with pytest.raises(OSError, match="r"):
        Follower(store.directory, folder, source="test", max_bytes=MAX_BYTES)
    folder.unlink()
    write(store, create(Course(id="c")))
    with following(store, folder) as follower, viewing(folder) as view:
        store.directory.subscribe(follower.apply_local_commit)
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()
        folder.write_text("a file")
        assert write(store, create(Course(id="d"))) == 2
        until(follower.initialized.is_set)
        folder.unlink()

        def caught_up() -> bool:
            view.release_stale_snapshot()
            return once_served(lambda: view.snapshot().revision == 2)

        until(caught_up, "a new replica")
    assert write(store, create(Course(id="e"))) == 3
