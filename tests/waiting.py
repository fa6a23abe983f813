"""Waits for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

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


def suspend(*processes: psutil.Process) -> None:
    """Send SIGSTOP; return once no thread of them runs, which a busy machine is late to bring about."""
    for process in processes:
        process.suspend()
    for process in processes:
        until(lambda each=process: _is_stopped(each), "it goes on")  # type: ignore[misc]  # bound now


def _is_stopped(process: psutil.Process) -> bool:
    threads = Path(f"/proc/{process.pid}/task")
    try:
        return all(each.read_text().rpartition(") ")[2][0] in "TZ" for each in threads.glob("*/stat"))
    except OSError:  # a thread that ends meanwhile
        return False
