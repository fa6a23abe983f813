"""What is acknowledged before the replica holds it: nobody answers from before it or waits forever."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NoReturn

import lmdb
import pytest

from authz.domain.consistency import FULLY_CONSISTENT, MINIMIZE_LATENCY, Consistency, at_least_as_fresh
from authz.domain.entities import Course
from authz.domain.errors import ErrorReason, UnavailableError
from authz.domain.mutations import LogTail
from authz.domain.tokens import ConsistencyToken
from authz.replica.shared_state import GENERATION, STATE_FILE, SharedState
from authz.replica.view import ReplicaView
from authz.store import Store
from tests.databases import create_sqlite
from tests.replica.conftest import (
    away,
    execute,
    following,
    gate_of,
    generation_of,
    reason_of,
    served,
    viewing,
)
from tests.replica.test_histories import members, rewrite
from tests.store.directory import create, open_with, remove, student, write
from tests.tokens import keys_in
from tests.waiting import until


def acknowledged(view: ReplicaView, store: Store, *, wait_s: float = 0.05) -> bool:
    """Acknowledge the last commit in the process of a view; whether the answer says that it is replicated."""
    with gate_of(view, store, wait_s=wait_s) as gate:
        return asyncio.run(gate.wait_until_replicated(store.directory.head()))


def test_no_process_answers_from_before_a_revocation_that_was_acknowledged(
    store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    write(store, create(Course(id="c")), create(student("maya", "c")))
    with following(store, folder), viewing(folder) as here, viewing(folder) as there:
        assert acknowledged(here, store, wait_s=30)
        assert members(there, "maya") == ["maya"]
        with away(store):
            write(store, remove(student("maya", "c").key))
            assert not acknowledged(here, store)
            assert reason_of(here) is reason_of(there) is ErrorReason.TOO_STALE
            with viewing(folder) as late:
                assert reason_of(late) is ErrorReason.TOO_STALE
        until(lambda: served(here) and served(there), "the revocation")
        assert members(here, "maya") == members(there, "maya") == []


@pytest.mark.parametrize("kind", ["token", "fully consistent"])
def test_a_check_that_asks_for_the_write_waits_for_it(store: Store, tmp_path: Path, kind: str) -> None:
    folder, keys = tmp_path / "r", keys_in(store)
    write(store, create(Course(id="c")))

    async def waits(view: ReplicaView, consistency: Consistency) -> ConsistencyToken:
        with gate_of(view, store, keys=keys) as gate:
            with pytest.raises(UnavailableError):
                await gate.snapshot(MINIMIZE_LATENCY, None)
            waiting = asyncio.create_task(gate.snapshot(consistency, None))
            await asyncio.wait({waiting}, timeout=0.1)
            assert not waiting.done()
            follows.set()
            return (await waiting).state

    with following(store, folder), viewing(folder) as view:
        assert acknowledged(view, store, wait_s=30)
        held, follows, follow = threading.Event(), threading.Event(), store.directory.follow

        def late(after: int, limit: int) -> LogTail:
            held.set()
            assert follows.wait(30)
            return follow(after, limit)

        store.directory.follow = late  # type: ignore[method-assign]
        assert held.wait(30)  # one that had begun would still see the write
        write(store, create(student("maya", "c")))
        head = store.directory.head()
        assert not acknowledged(view, store)
        consistency = FULLY_CONSISTENT if kind != "token" else at_least_as_fresh(keys.sign(head))
        assert asyncio.run(waits(view, consistency)) == head


def test_a_replica_that_was_built_from_before_the_write_is_not_served_until_it_has_it(
    store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    write(store, create(Course(id="c")), create(student("maya", "c")))
    dump, follow = store.directory.dump, store.directory.follow
    built, answered = threading.Event(), list[bool]()

    @contextmanager
    def early() -> Iterator[object]:
        with dump() as held:
            assert held.state.revision == 1
            write(store, remove(student("maya", "c").key))
            assert not acknowledged(view, store)
            built.set()
            yield held

    def first(after: int, limit: int) -> LogTail:
        if built.is_set():
            answered.append(served(view))
        return follow(after, limit)

    with following(store, folder), viewing(folder) as view:
        assert members(view, "maya") == ["maya"]
        # What was confirmed stays so: only what is required keeps the new replica from being served.
        store.directory.dump, store.directory.follow = early, first  # type: ignore[method-assign, assignment]
        state = SharedState(folder)
        first_generation, state.words[GENERATION] = state.generation, 7  # the follower builds another
        until(lambda: generation_of(folder) not in (0, 7, first_generation) and served(view), "a new replica")
        assert members(view, "maya") == []
        assert answered[0] is False
        state.close()


def test_what_is_required_of_a_history_that_was_lost_is_not_waited_for(
    store: Store, store_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    write(store, create(Course(id="c")), create(student("maya", "c")))
    with following(store, folder), viewing(folder) as view:
        with away(store):
            for name in "defg":
                write(store, create(Course(id=name)))
            assert not acknowledged(view, store)
            # As by a standby that was behind: what was acknowledged is gone.
            execute(
                store_url,
                "DELETE FROM changes WHERE revision > 1",
                "DELETE FROM revisions WHERE revision > 1",
                "DELETE FROM courses WHERE id <> 'c'",
                "UPDATE counter SET revision = 1",
            )
            assert not served(view)
        until(lambda: served(view), "checks are refused forever")
        assert members(view, "maya") == ["maya"]
        assert not view.is_behind()


def test_a_replica_of_a_lost_history_is_not_served_although_its_revision_is_greater(
    store: Store, store_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    write(store, create(Course(id="c")))
    write(store, create(student("maya", "c")))
    with following(store, folder), viewing(folder) as view, viewing(folder) as other:
        for name in "defg":
            write(store, create(Course(id=name)))
        until(lambda: view.revision() == 6, "the follower")
        assert members(other, "maya") == ["maya"]
        with away(store):
            lose_all_since_the_second_revision(store_url)
            assert not acknowledged(view, store)
            assert not served(other)
        until(lambda: served(other), "the other history")
        assert members(other, "maya") == []


def test_a_fully_consistent_call_is_not_answered_from_a_lost_history_whose_revision_is_greater(
    store: Store, store_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    write(store, create(Course(id="c")))
    write(store, create(student("maya", "c")))
    for name in "defg":
        write(store, create(Course(id=name)))
    with following(store, folder), viewing(folder) as view:
        assert members(view, "maya") == ["maya"]
    lose_all_since_the_second_revision(store_url)
    # Nor does its time tell.
    execute(store_url, "UPDATE revisions SET committed_at = committed_at - 1 WHERE revision = 3")
    with viewing(folder) as view, gate_of(view, store) as gate:
        assert view.revision() == 6
        with pytest.raises(UnavailableError) as caught:
            asyncio.run(gate.snapshot(FULLY_CONSISTENT, time.monotonic() + 1))
        assert caught.value.reason is ErrorReason.NOT_FRESH_ENOUGH
    with following(store, folder), viewing(folder) as view, gate_of(view, store) as gate:
        asyncio.run(gate.snapshot(FULLY_CONSISTENT, None))
        assert members(view, "maya") == []


def lose_all_since_the_second_revision(url: str) -> None:
    """As by a standby that was behind, which then writes two other revisions."""
    execute(
        url,
        "DELETE FROM changes WHERE revision > 2",
        "DELETE FROM revisions WHERE revision > 2",
        "DELETE FROM courses WHERE id <> 'c'",
    )
    rewrite(url)


def test_a_write_is_done_although_the_replica_cannot_be_read(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, folder = sqlite_store, tmp_path / "r"

    def damaged() -> NoReturn:
        raise lmdb.CorruptedError("a page is damaged")

    with following(store, folder), viewing(folder) as view:
        write(store, create(Course(id="c")))
        with monkeypatch.context() as patch:
            patch.setattr(view, "snapshot", damaged)
            assert not acknowledged(view, store, wait_s=30)
        assert acknowledged(view, store, wait_s=30)


def test_another_database_has_no_use_for_what_was_required_of_the_first(
    sqlite_store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    for name in "cde":
        write(sqlite_store, create(Course(id=name)))
    with following(sqlite_store, folder), viewing(folder) as view, away(sqlite_store):
        write(sqlite_store, create(Course(id="f")))
        assert not acknowledged(view, sqlite_store)
    other = open_with(create_sqlite(tmp_path / "other.db"))
    write(other, create(Course(id="c")))
    with following(other, folder, source="other"), viewing(folder, source="other") as view:
        until(lambda: served(view), "the other database")
        assert acknowledged(view, other, wait_s=30)
    other.close()


def test_a_server_of_another_database_requires_nothing_of_a_folder_that_is_not_its_own(
    sqlite_store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")))
    other = open_with(create_sqlite(tmp_path / "other.db"))
    for name in "cde":
        write(other, create(Course(id=name)))
    with following(sqlite_store, folder), viewing(folder) as view, viewing(folder, source="other") as theirs:
        assert not acknowledged(theirs, other)
        assert served(view)
    other.close()


def test_of_processes_that_require_at_once_the_greatest_revision_counts(tmp_path: Path) -> None:
    states = [SharedState(tmp_path) for _ in range(8)]
    revisions = [random.Random(seed).sample(range(1, 100_000), 200) for seed in range(len(states))]

    def require(state: SharedState, wanted: list[int]) -> None:
        for revision in wanted:
            state.require(revision)

    with ThreadPoolExecutor(len(states)) as pool:
        list(pool.map(require, states, revisions))
    greatest = max(map(max, revisions))
    states[0].advance(greatest - 1)
    assert all(state.is_behind() for state in states)
    states[0].release(greatest - 1)  # read before the greatest was required
    assert states[1].is_behind()
    states[0].advance(greatest)
    assert not any(state.is_behind() for state in states)
    for state in states:
        state.close()


def test_the_page_that_processes_share_has_its_place_on_the_disk_from_the_start(tmp_path: Path) -> None:
    with closing(SharedState(tmp_path)):
        # Else the first write to it would end its process where the disk is full.
        assert (tmp_path / STATE_FILE).stat().st_blocks > 0
