"""A writer that is killed loses nothing that it acknowledged, and leaves no half write."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.store.directory import open_with, replay, stored


@pytest.mark.parametrize("acknowledged", [1, 7, 30])
def test_a_killed_writer_leaves_whole_writes(store_url: str, acknowledged: int) -> None:
    open_with(store_url).close()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.store.writer", store_url], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for _ in range(acknowledged):
            last = int(writer.stdout.readline())
        writer.kill()
        last = max([last, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    store = open_with(store_url)
    log = store.directory.changes(0, 10_000)
    assert [change.revision for change in log] == list(range(1, len(log) + 1))
    assert len(log) >= last >= acknowledged
    assert all(len(change.mutations) == 2 for change in log)
    assert replay(log) == stored(store)
    store.close()
