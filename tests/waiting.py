"""Waits for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

_MIN_PAUSE_S = 0.005
_LATE = 0.05
"""The part by which a wait may be too long. Each look takes processor time from what the test waits for, so a
long wait looks rarely."""


def until(holds: Callable[[], object], what: str = "not in time", timeout_s: float = 60) -> None:
    """Return once `holds()` is true; fail with `what` after `timeout_s`."""
    begun = time.monotonic()
    while not holds():
        waited_s = time.monotonic() - begun
        assert waited_s < timeout_s, what
        time.sleep(max(_MIN_PAUSE_S, _LATE * waited_s))
