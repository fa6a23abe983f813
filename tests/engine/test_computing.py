"""What computes for long ends by itself, whatever the deadline of its call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from authz.domain.errors import InvalidArgumentError
from tests.replica.conftest import following, gate_of, viewing
from tests.store.directory import open_with


def compute_forever(require_not_cancelled: Callable[[], object]) -> None:
    """Compute until the call is cancelled."""
    while True:
        require_not_cancelled()


def test_a_computation_that_takes_too_long_is_refused(sqlite_url: str, tmp_path: Path) -> None:
    store, folder = open_with(sqlite_url), tmp_path / "r"
    with (
        following(store, folder),
        viewing(folder) as view,
        gate_of(view, store, computing_s=0.01) as gate,
        pytest.raises(InvalidArgumentError, match=r"more than 0\.01 s to compute; send fewer edits"),
    ):
        asyncio.run(gate.compute_cancellable(compute_forever))
    store.close()
