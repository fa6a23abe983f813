"""The upkeep of a process that reads the replica; health checks and metrics only read."""

from __future__ import annotations

import asyncio

import structlog

from authz.engine.clock import DecisionClock
from authz.replica.view import ReplicaView

log = structlog.get_logger()

_INTERVAL_S = 0.5


async def keep_view_current(view: ReplicaView, clock: DecisionClock) -> None:
    """Twice a second, release a snapshot or a folder that was replaced since, and compare the clock with the
    newest state; runs until it is cancelled.

    A snapshot that no check replaces would keep LMDB from reusing its pages, and the files of a replica that
    was built again would keep their disk space.
    """
    failing = False
    while True:
        failing = not make_current(view, clock, logs=not failing)
        await asyncio.sleep(_INTERVAL_S)


def make_current(view: ReplicaView, clock: DecisionClock, *, logs: bool = True) -> bool:
    """As `keep_view_current`, once; return whether it succeeded. With `logs`, logs a failure."""
    try:
        view.release_stale_snapshot()
        clock.observe(view)
    except Exception:
        # If the task ended, nothing would release snapshots any more.
        if logs:
            log.exception("view not kept current")
        return False
    return True
