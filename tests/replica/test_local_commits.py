"""What a process commits is in its replica before the caller is answered, and never on another history."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from authz.domain.entities import Course
from authz.domain.mutations import Change, LocalCommit, LogTail
from authz.domain.tokens import ConsistencyToken, TokenKeys
from authz.engine.consistency import ConsistencyGate
from authz.replica.environment import acquire_environment, release_environment
from authz.replica.shared_state import SharedState
from authz.replica.view import ReplicaView
from authz.store import Store
from tests.replica.conftest import MAX_BYTES, away, execute, following, generation_of, rows_of, viewing
from tests.replica.test_follower import holds, memberships
from tests.store.directory import Clock, create, lesson, open_with, remove, student, write
from tests.waiting import until


def test_what_this_process_commits_is_there_when_its_caller_is_answered(store: Store, tmp_path: Path) -> None:
    write(store, *(create(entity) for entity in lesson("c", "s")))
    follow = store.directory.follow
    by_the_log: list[Change] = []

    def counted(after: int, limit: int) -> LogTail:
        tail = follow(after, limit)
        by_the_log.extend(tail.changes)
        return tail

    store.directory.follow = counted  # type: ignore[method-assign]  # counted
    with following(store, tmp_path / "r") as follower, viewing(tmp_path / "r") as view:
        store.directory.subscribe(follower.apply_local_commit)
        at_once = 0
        for number in range(20):
            revision = write(store, create(student(f"u{number}", "c")), create(Course(id=f"d{number}")))
            at_once += view.revision() == revision
            until(lambda: holds(view, revision))  # noqa: B023  called here and now
            assert memberships(view, f"u{number}", "c") == 1
        # The follower may come first: it then has read the log.
        assert at_once + len(by_the_log) >= 20
        assert at_once > 10


def test_what_follows_on_another_history_is_not_taken(sqlite_store: Store, tmp_path: Path) -> None:
    store, folder = sqlite_store, tmp_path / "r"
    write(store, create(Course(id="c")))
    execute(str(store.directory._engine.url), f"VACUUM INTO '{tmp_path / 'copy.db'}'")
    later = Clock()
    later.now += 1
    other = open_with(f"sqlite:///{tmp_path / 'copy.db'}", later)
    theirs: list[LocalCommit] = []
    other.directory.subscribe(theirs.append)
    for name in ("omar", "lina"):
        write(other, create(student(name, "c")))
    assert [(each.after.revision, len(each.changes)) for each in theirs] == [(1, 1), (2, 1)]

    write(store, create(student("maya", "c")))
    with following(store, folder) as follower:
        before = rows_of(folder)
        for committed in theirs:
            follower.apply_local_commit(committed)
            assert rows_of(folder) == before
        ours: list[LocalCommit] = []
        store.directory.subscribe(ours.append)
        environment = acquire_environment(folder / str(generation_of(folder)), max_bytes=MAX_BYTES)
        with away(store):
            write(store, create(student("noor", "c")))
            replace, after = msgspec.structs.replace, ours[0].after
            follower.apply_local_commit(
                replace(ours[0], after=replace(after, database_id=after.database_id + "x"))
            )
            follower.apply_local_commit(
                replace(ours[0], after=replace(after, committed_at=after.committed_at + 1))
            )
            assert environment.state().revision == 2
            follower.apply_local_commit(ours[0])
            assert environment.state().revision == 3
        release_environment(environment)
    other.close()


def test_a_write_is_settled_only_once_every_process_is_told(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, folder = sqlite_store, tmp_path / "r"
    write(store, create(Course(id="c")), create(student("maya", "c")))
    taken, told, advance = threading.Event(), threading.Event(), SharedState.advance

    def late(self: SharedState, revision: int) -> None:
        taken.set()
        told.wait(30)
        advance(self, revision)

    async def settles(view: ReplicaView, before: ConsistencyToken, state: ConsistencyToken) -> None:
        reading = ConsistencyGate(
            view,
            store.directory,
            keys=TokenKeys(),
            pool=pool,
            computing_pool=pool,
            freshness_timeout_s=5,
            replication_timeout_s=30,
        )
        await reading.wait_until_replicated(before)
        assert view.snapshot().state == state  # though nobody is told of it
        settling = asyncio.create_task(reading.wait_until_replicated(state))
        await asyncio.wait({settling}, timeout=0.1)
        assert not settling.done()
        told.set()
        await settling

    with following(store, folder), viewing(folder) as here, viewing(folder) as there:
        assert memberships(there, "maya", "c") == 1
        before = store.directory.head()
        monkeypatch.setattr(SharedState, "advance", late)
        write(store, remove(student("maya", "c").key))
        assert taken.wait(30)
        with ThreadPoolExecutor(1) as pool:
            asyncio.run(settles(here, before, store.directory.head()))
        assert memberships(there, "maya", "c") == 0
