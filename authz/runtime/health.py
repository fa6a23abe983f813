"""Serves `grpc.health.v1`: one status for each service, kept current by probes that only read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from authz.domain.consistency import MINIMIZE_LATENCY
from authz.domain.errors import NO_ANSWER, ErrorReason, UnavailableError
from authz.domain.ports import View
from authz.engine.policies import ActiveChecker
from authz.store.directory import SqlDirectory

log = structlog.get_logger()

_FRESH_INTERVAL_S = 0.5
_STORE_INTERVAL_S = 2.0
_PROBE_TIMEOUT_S = 3.0

Probe = Callable[[], Awaitable[str]]
"""Returns why a service does not serve; empty when it does."""


class Health:
    """SERVING for the service `checks` while checks are answered, and for each of `directory` while the
    database answers. The status of the whole server (the empty name) is that of `checks`. The health service
    itself is SERVING from the start, so that a probe under its name tells only whether this process answers.
    """

    def __init__(self, checks: str, directory: tuple[str, ...], on_change: Callable[[str], None]) -> None:
        """Calls `on_change` with `cause` whenever that may have changed."""
        self._checks = checks
        self._of_directory = directory
        self._on_change = on_change
        self.cause = "starting"
        """Why checks are not answered; empty while they are. For any thread."""
        self._database_fault = ""
        self._servicer = health.aio.HealthServicer()
        # Its own thread: a probe must not queue behind calls that wait for the database.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="probe")
        self._probes: list[asyncio.Task[None]] = []

    def database_fault(self) -> str:
        """Why the database does not serve calls, by its last probe; empty if it does."""
        return self._database_fault

    async def add_to(self, server: Any) -> None:
        """Add the health service, which reports NOT_SERVING for everything but itself until `watch`."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        await self._report(health.SERVICE_NAME, "")
        for name in (self._checks, *self._of_directory):
            await self._report(name, "starting")

    async def watch(
        self, active: ActiveChecker, view: View, directory: SqlDirectory, *, max_staleness_s: float
    ) -> None:
        """Probe now, and again until `drain`; report every change."""

        async def is_fresh() -> str:
            try:
                # What a check needs: a fresh replica may still be of another database, or damaged, or have a
                # policy that this release cannot read. Without checks, this compiles a new version.
                await active.get(MINIMIZE_LATENCY, None)
            except UnavailableError as error:
                return error.message
            return "" if view.staleness_s() <= max_staleness_s else "the replica is too stale"

        async def answers() -> str:
            serving = asyncio.get_running_loop().run_in_executor(self._pool, directory.require_serving)
            try:
                async with asyncio.timeout(_PROBE_TIMEOUT_S):
                    await serving
            except TimeoutError:
                self._database_fault = NO_ANSWER
                return NO_ANSWER
            except UnavailableError as error:
                # Another reason is of a write that was refused: nothing waits.
                self._database_fault = error.message if error.reason is ErrorReason.STORE_UNAVAILABLE else ""
                return error.message
            self._database_fault = ""
            return ""

        for names, interval_s, probe in (
            ((self._checks,), _FRESH_INTERVAL_S, is_fresh),
            (self._of_directory, _STORE_INTERVAL_S, answers),
        ):
            serving = await self._probe(names, probe, None)
            self._probes.append(asyncio.create_task(self._probe_forever(names, interval_s, probe, serving)))

    async def drain(self) -> None:
        """Stop probing, and report NOT_SERVING from now on."""
        self._set_cause("stopping")
        for probe in self._probes:
            probe.cancel()
            with suppress(asyncio.CancelledError):
                await probe
        self._probes.clear()
        await self._servicer.enter_graceful_shutdown()
        # A probe may still wait for the database.
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _set_cause(self, cause: str) -> None:
        self.cause = cause
        self._on_change(cause)

    async def _report(self, name: str, cause: str) -> None:
        answer = health_pb2.HealthCheckResponse
        status = answer.NOT_SERVING if cause else answer.SERVING
        await self._servicer.set(name, status)
        if name == self._checks:
            self._set_cause(cause)
            await self._servicer.set("", status)

    async def _probe(self, names: tuple[str, ...], probe: Probe, was_serving: bool | None) -> bool:
        """Probe once, and report a change; None before the first time. Return whether the services serve."""
        try:
            cause = await probe()
        except Exception:
            # If the probe ended here, health would stay as it was.
            if was_serving is not False:
                log.exception("probe failed", services=names)
            cause = "the probe failed"
        serving = not cause
        if was_serving is not None and serving is not was_serving:
            log.warning(
                "health changed", services=names, serving=serving, **({"cause": cause} if cause else {})
            )
        if serving is not was_serving:
            for name in names:
                await self._report(name, cause)
        return serving

    async def _probe_forever(
        self, names: tuple[str, ...], interval_s: float, probe: Probe, serving: bool
    ) -> None:
        while True:
            await asyncio.sleep(interval_s)
            serving = await self._probe(names, probe, serving)
