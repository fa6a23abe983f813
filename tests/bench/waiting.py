"""Print what calls cost that wait for the replica: checks with a token of the future, and idle watches."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from authz.domain.consistency import Consistency, at_least_as_fresh
from authz.domain.entities import Course
from authz.engine.consistency import ConsistencyGate
from authz.store import Store
from tests.bench.measure import show
from tests.databases import create_sqlite
from tests.replica.conftest import following, viewing
from tests.store.directory import create, open_with, write
from tests.tokens import keys_in, moved

SECONDS = 4.0
TIMEOUT_S = 600.0


def main(count: int = 1000) -> None:
    """The processor time of the event loop while so many calls wait."""
    with tempfile.TemporaryDirectory() as name:
        url = create_sqlite(Path(name) / "authz.db")
        store = open_with(url)
        try:
            write(store, create(Course(id="c")))
            _measure(store, url, Path(name) / "replica", count)
        finally:
            store.close()


def _measure(store: Store, url: str, folder: Path, count: int) -> None:
    keys = keys_in(store)
    head = store.directory.head()
    later = at_least_as_fresh(moved(url, keys.sign(head), 1000))
    with following(store, folder), viewing(folder) as view, ThreadPoolExecutor(1) as pool:
        gate = ConsistencyGate(
            view,
            store.directory,
            keys=keys,
            pool=pool,
            computing_pool=pool,
            freshness_timeout_s=TIMEOUT_S,
            replication_timeout_s=TIMEOUT_S,
        )
        for kind, load in asyncio.run(_loads(gate, head.revision, later, count)).items():
            show(f"{count:,} {kind}", f"{load:.1%} of a processor")


async def _loads(gate: ConsistencyGate, revision: int, later: Consistency, count: int) -> dict[str, float]:
    calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "checks that wait for a token": lambda: gate.snapshot(later, None),
        "idle watches": lambda: gate.wait_beyond(revision, TIMEOUT_S),
    }
    found = {}
    for kind, call in calls.items():
        waiting = [asyncio.ensure_future(call()) for _ in range(count)]
        await asyncio.sleep(SECONDS / 10)
        begun_s = time.thread_time()
        await asyncio.sleep(SECONDS)
        found[kind] = (time.thread_time() - begun_s) / SECONDS
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
