"""Steps in the background beside a replica: one process takes them, and goes on whatever fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from authz.domain.entities import Course
from authz.domain.erasures import ErasureCertificate, ErasureRequest
from authz.domain.errors import ErrorReason
from authz.domain.origin import Origin
from authz.domain.tokens import ConsistencyToken
from authz.engine.background_steps import BackgroundSteps
from authz.engine.erasure import Eraser
from authz.engine.group_commit import GroupCommitter
from authz.replica.view import ReplicaView
from authz.store import Store
from tests.replica.conftest import away, following, gate_of, reason_of, served, viewing
from tests.replica.test_histories import members
from tests.store.directory import create, student, write
from tests.waiting import until


async def _erased(
    view: ReplicaView, store: Store, advance: Callable[[], ConsistencyToken] | None = None
) -> ErasureCertificate:
    """The answer to the erasure of maya."""
    data, committer = store.personal_data, GroupCommitter(store.directory)
    with gate_of(view, store) as gate:
        step = advance or data.advance_erasure
        steps = BackgroundSteps("erasure", data.erasure_progress, step, gate, committer)
        request = ErasureRequest(subject=student("maya", "c").subject, origin=Origin(reason="asked"))
        async with asyncio.timeout(30):
            found = await Eraser(data, gate, committer, steps).erase(request, None)
        await committer.close()
        return found


def test_an_erasure_is_answered_while_the_replica_does_not_follow_and_nobody_answers_from_before_it(
    store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    write(store, create(Course(id="c")), create(student("maya", "c")))
    with following(store, folder), viewing(folder) as view:
        assert members(view, "maya") == ["maya"]
        with away(store):
            assert asyncio.run(_erased(view, store)).finished_at is None
            assert reason_of(view) is ErrorReason.TOO_STALE
        until(lambda: served(view), "the erasure")
        assert members(view, "maya") == []


def test_an_erasure_whose_time_a_long_step_has_taken_is_answered_without_a_pause(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, folder, an_hour_s = sqlite_store, tmp_path / "r", 3600.0
    passed_s = [0.0]

    def slow() -> ConsistencyToken:
        passed_s[0] += an_hour_s
        return store.personal_data.advance_erasure()

    write(store, create(Course(id="c")), create(student("maya", "c")))
    with following(store, folder), viewing(folder) as view:
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed_s[0])
        monkeypatch.setattr("authz.engine.background_steps.time", clock)
        assert asyncio.run(_erased(view, store, slow)).finished_at is None
    assert passed_s == [an_hour_s]


async def _looks_before_each_preparation(view: ReplicaView, store: Store, patience: int) -> list[int]:
    committer, left = GroupCommitter(store.directory), [2, 1]
    looks, prepared = list[int](), list[int]()

    def look() -> object | None:
        looks.append(len(left))
        return len(left) or None

    def advance(_: object) -> ConsistencyToken:
        left.pop()
        return store.directory.head()

    with gate_of(view, store) as gate:
        steps = BackgroundSteps("erasure", look, advance, gate, committer, interval_s=0.01)
        steps.prepare, steps.patience = lambda: prepared.append(len(looks)), patience
        running = asyncio.ensure_future(steps.run())
        async with asyncio.timeout(30):
            while left:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.01)
        running.cancel()
        await committer.close()
    return prepared


def test_a_process_prepares_what_another_may_be_preparing_only_after_a_while(
    sqlite_store: Store, tmp_path: Path
) -> None:
    """And goes on at once with what it has begun: it looks after each step, and before the next."""
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")))
    with following(sqlite_store, folder), viewing(folder) as view:
        until(lambda: served(view), "the replica")
        for patience in (1, 5):
            prepared = asyncio.run(_looks_before_each_preparation(view, sqlite_store, patience))
            assert prepared == [1 + patience, 3 + patience]


async def _steps_after_a_lost_one(view: ReplicaView, store: Store) -> None:
    committer, left = GroupCommitter(store.directory), [2, 1]

    def advance() -> ConsistencyToken:
        left.pop()
        head = store.directory.head()
        return ConsistencyToken(head.database_id, head.revision + 1)  # which the database has no more

    with gate_of(view, store) as gate:
        steps = BackgroundSteps(
            "removal", lambda: len(left) or None, advance, gate, committer, interval_s=0.01
        )
        running = asyncio.ensure_future(steps.run())
        async with asyncio.timeout(30):
            while left:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.01)
        running.cancel()
        await committer.close()


def test_work_in_the_background_goes_on_after_a_step_that_a_failover_has_lost(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.engine.background_steps._INTERVAL_S", 0.05)
    folder = tmp_path / "r"
    write(sqlite_store, create(Course(id="c")))
    with following(sqlite_store, folder), viewing(folder) as view:
        until(lambda: served(view), "the replica")
        asyncio.run(_steps_after_a_lost_one(view, sqlite_store))
