"""Health as the world asks for it: `grpc.health.v1`, one status a service, kept true by probes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from authz.domain.errors import UnavailableError
from authz.domain.ports import DATABASE_ANSWER_TIMEOUT_S, Directory, View

log = structlog.get_logger()

_FRESH_INTERVAL_S = 0.5
_STORE_INTERVAL_S = 2.0
_PROBE_TIMEOUT_S = 3.0

Probe = Callable[[], Awaitable[bool]]


class Health:
    """Answers for checks by how fresh the view is, and for the rest by whether the database answers.

    The empty name, for who does not say what it asks about, is whether checks are answered.
    """

    def __init__(self, checks: str, directory: tuple[str, ...]) -> None:
        self._checks = checks
        self._of_directory = directory
        self._servicer = health.aio.HealthServicer()
        # Not behind calls that a database without an answer holds up.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="probe")
        self._probes: list[asyncio.Task[None]] = []

    async def add_to(self, server: Any) -> None:
        """Serve, and say NOT_SERVING of everything until `watch`."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        for name in (self._checks, *self._of_directory):
            await self._report(name, serving=False)

    async def watch(self, view: View, directory: Directory, *, max_staleness_s: float) -> None:
        """Report how things are now, and from now on whenever that changes."""
        clock = asyncio.get_running_loop().time
        heard_at = clock()

        async def is_fresh() -> bool:
            view.release_stale_snapshot()
            try:
                # As a check does: also a fresh replica may be another database's, or damaged.
                view.snapshot()
            except UnavailableError:
                return False
            return view.staleness_s() <= max_staleness_s

        async def answers() -> bool:
            nonlocal heard_at
            head = asyncio.get_running_loop().run_in_executor(self._pool, directory.head)
            try:
                async with asyncio.timeout(_PROBE_TIMEOUT_S):
                    await head
            except TimeoutError:
                if clock() - heard_at > DATABASE_ANSWER_TIMEOUT_S:
                    directory.abort_connections()
                    heard_at = clock()
                return False
            except UnavailableError:
                heard_at = clock()
                return False
            heard_at = clock()
            return True

        for names, interval_s, probe in (
            ((self._checks,), _FRESH_INTERVAL_S, is_fresh),
            (self._of_directory, _STORE_INTERVAL_S, answers),
        ):
            serving = await self._holds(names, probe, before=True)
            for name in names:
                await self._report(name, serving=serving)
            self._probes.append(asyncio.create_task(self._keep(names, interval_s, probe, serving)))

    async def drain(self) -> None:
        """Say NOT_SERVING from now on, whatever the probes would."""
        for probe in self._probes:
            probe.cancel()
            with suppress(asyncio.CancelledError):
                await probe
        self._probes.clear()
        await self._servicer.enter_graceful_shutdown()
        # A probe may be waiting for a database without an answer.
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _report(self, name: str, *, serving: bool) -> None:
        answer = health_pb2.HealthCheckResponse
        status = answer.SERVING if serving else answer.NOT_SERVING
        await self._servicer.set(name, status)
        if name == self._checks:
            await self._servicer.set("", status)

    async def _holds(self, names: tuple[str, ...], probe: Probe, *, before: bool) -> bool:
        try:
            return await probe()
        except Exception:
            # A probe that ended here would leave health as it was, true or not.
            if before:
                log.exception("probe failed", services=names)
            return False

    async def _keep(self, names: tuple[str, ...], interval_s: float, probe: Probe, serving: bool) -> None:
        while True:
            await asyncio.sleep(interval_s)
            answers = await self._holds(names, probe, before=serving)
            if answers is not serving:
                serving = answers
                log.warning("health changed", services=names, serving=serving)
                for name in names:
                    await self._report(name, serving=serving)
