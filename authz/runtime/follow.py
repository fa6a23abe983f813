"""The process of `authz follow`: keeps this machine's replica up to date and serves nothing."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial

import structlog

from authz.engine.clock import DecisionClock
from authz.replica.view import ReplicaView
from authz.runtime.compose import open_follower, open_view, prepare_database, require_replica, system_clock
from authz.runtime.lifecycle import (
    finishes_before,
    ignore_hangups,
    in_background,
    run_abandonable,
    run_until,
    stop_event,
)
from authz.runtime.liveness import end_if_stuck, notify_systemd
from authz.runtime.maintenance import keep_view_current
from authz.runtime.metrics import ReplicaCollector, exporting
from authz.runtime.probes import require_metrics_address
from authz.runtime.settings import Settings
from authz.store import open_store
from authz.store.schema import nothing_is_active

log = structlog.get_logger()

_DATABASE_GRACE_S = 2.0
"""How long a stop waits for the database."""


async def follow(settings: Settings) -> None:
    """Keep this machine's replica at the head of the change log until SIGTERM or SIGINT.

    Raises as `prepare_database` does when there is neither a database nor a replica of it.
    """
    ignore_hangups()
    stopped = stop_event(signal.SIGTERM, signal.SIGINT)
    require_replica(settings)
    require_metrics_address(settings.metrics_address)
    preparing = asyncio.create_task(run_abandonable(prepare_database, settings))
    if await finishes_before(stopped, preparing):
        await _follow(settings, stopped, prepared=preparing.result())
    log.info("stopped")


async def _follow(settings: Settings, stopped: asyncio.Event, *, prepared: bool) -> None:
    view = open_view(settings)
    clock = DecisionClock(system_clock)
    not_ready = partial(_not_ready, view, settings.max_staleness_s)
    with (
        closing(view),
        in_background(keep_view_current(view, clock)),
        exporting(settings.metrics_address, ReplicaCollector(view, clock), not_ready=not_ready),
    ):
        ready = partial(notify_systemd, "READY=1")
        await run_follower(settings, stopped, prepared=prepared, on_initialized=ready)
        notify_systemd("STOPPING=1")


def _not_ready(view: ReplicaView, max_staleness_s: float) -> str:
    """Why nobody can answer from the replica; empty when it is fresh."""
    is_fresh = view.staleness_s() <= max_staleness_s and not view.is_behind()
    return "" if is_fresh else "the replica is too stale"


async def run_follower(
    settings: Settings,
    stopped: asyncio.Event,
    *,
    prepared: bool,
    on_initialized: Callable[[], None],
) -> None:
    """Follow in a thread until `stopped`; raise what ends the thread earlier.

    Calls `on_initialized` once the follower has confirmed the replica, or found that it cannot do so now.
    """
    store = open_store(
        settings.database_url,
        password_file=settings.database_password_file,
        vocabularies=nothing_is_active,  # only a write needs the policy
        clock=system_clock,
    )
    follower = open_follower(settings, store.directory, prepared=prepared)
    running = asyncio.create_task(run_abandonable(follower.run))
    running.add_done_callback(lambda _: stopped.set())
    initialized = asyncio.create_task(run_abandonable(follower.initialized.wait))
    initialized.add_done_callback(lambda _: on_initialized())
    with in_background(end_if_stuck(follower)):
        await run_until(stopped)
    follower.stop()
    # Do not wait for a database that gives no answer.
    store.directory.abort_connections()
    with suppress(TimeoutError):
        # While it brings the schema up to date, its connection is not among those.
        async with asyncio.timeout(_DATABASE_GRACE_S):
            await asyncio.gather(running, initialized)
    store.close()
