"""One file of a replica, which all processes of a machine read."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from authz.replica.environment import Environment
from authz.runtime.settings import Settings
from tests.replica.conftest import MAX_BYTES

WORKERS = 16


def test_every_call_of_many_workers_that_takes_turns_holds_a_snapshot(tmp_path: Path) -> None:
    limits = Settings()
    calls = WORKERS * (limits.max_batches + limits.max_lists + limits.max_writes)
    environment = Environment(tmp_path / "1", max_bytes=MAX_BYTES)
    with closing(environment.lmdb):
        held = [environment.lmdb.begin() for _ in range(calls)]
        assert len({each.id() for each in held}) == 1
        for each in held:
            each.abort()
