"""Waits for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

_PAUSE_S = 0.005


def until(holds: Callable[[], object], what: str = "not in time", timeout_s: float = 60) -> None:
    """Return once `holds()` is true; fail with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(_PAUSE_S)
