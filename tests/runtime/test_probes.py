"""Health checks and metrics only read; the maintenance task does the upkeep."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from authz.domain.entities import Course
from authz.engine.clock import DecisionClock
from authz.replica.view import ReplicaView
from authz.runtime import maintenance
from authz.runtime.compose import system_clock
from authz.runtime.maintenance import keep_view_current
from authz.runtime.metrics import ReplicaCollector
from authz.store import Store
from tests.replica.conftest import following, generation_of, viewing
from tests.store.directory import create, open_with, write
from tests.waiting import until


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    """An empty store."""
    opened = open_with(sqlite_url)
    yield opened
    opened.close()


def staleness_of(view: ReplicaView) -> float:
    """What is exported."""
    families = {
        family.name: family
        for family in ReplicaCollector(view, DecisionClock(system_clock), lambda: 0, None).collect()
    }
    value: float = families["authz_replica_staleness_seconds"].samples[0].value
    return value


def replaced(store: Store, folder: Path) -> None:
    """Delete the folder, and build a replica in a new one of the same name."""
    shutil.rmtree(folder)
    with following(store, folder):
        until(lambda: generation_of(folder) != 0)


async def upkeep(view: ReplicaView) -> None:
    """Run the maintenance task until the view is current."""
    task = asyncio.create_task(keep_view_current(view, DecisionClock(system_clock)))
    async with asyncio.timeout(60):
        while staleness_of(view) == float("inf"):  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.01)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def test_metrics_leave_a_replaced_folder_to_the_maintenance_task(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with viewing(folder) as view:
        assert staleness_of(view) == float("inf")
        replaced(store, folder)
        for _ in range(2):
            assert staleness_of(view) == float("inf")
        asyncio.run(upkeep(view))
        assert staleness_of(view) < 30


def test_the_maintenance_task_goes_on_after_a_failure(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, create(Course(id="c")))
    monkeypatch.setattr(maintenance, "_INTERVAL_S", 0.01)
    failures = [RuntimeError("one"), RuntimeError("two")]

    class Failing(ReplicaView):
        def release_stale_snapshot(self) -> None:
            """Fails at first."""
            if failures:
                raise failures.pop()
            super().release_stale_snapshot()

    folder = tmp_path / "r"
    view = Failing(folder, source="test", max_bytes=1 << 28, max_staleness_s=30)
    replaced(store, folder)
    asyncio.run(upkeep(view))
    assert not failures
    assert staleness_of(view) < 30
    view.close()
