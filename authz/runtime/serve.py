"""The process of `authz serve` with one worker."""

from __future__ import annotations

import asyncio
import signal
from contextlib import nullcontext

import structlog

from authz.runtime.lifecycle import finishes_before, ignore_hangups, in_background, run_until, stop_event
from authz.runtime.liveness import end_if_stuck, notify_systemd
from authz.runtime.metrics import ReplicaCollector, exporting
from authz.runtime.server import Server
from authz.runtime.settings import Settings
from authz.runtime.tuning import schedule, tune_interpreter

log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Serve in this process until SIGTERM or SIGINT, then let calls in flight finish."""
    schedule(settings)
    ignore_hangups()
    stopped = stop_event(signal.SIGTERM, signal.SIGINT)
    server = Server(settings)
    if await finishes_before(stopped, server.start()):
        try:
            await run(server, settings, stopped)
        finally:
            await server.stop(grace_s=settings.stop_grace_s)
    log.info("stopped")


async def run(server: Server, settings: Settings, stopped: asyncio.Event) -> None:
    """Serve with a server that has started, until `stopped`."""
    tune_interpreter()
    collector = ReplicaCollector(server.view, server.decision_clock, workers=lambda: 1)
    watching = nullcontext() if server.follower is None else in_background(end_if_stuck(server.follower))
    with watching, exporting(settings.metrics_address, collector, not_ready=lambda: server.health.cause):
        log.info(
            "serving",
            address=server.address,
            transport=settings.transport,
            policy_version=server.policy_version,
        )
        notify_systemd("READY=1")
        await run_until(stopped)
        notify_systemd("STOPPING=1")
