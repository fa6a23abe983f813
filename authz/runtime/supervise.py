"""The process of `authz serve --workers N`: supervises workers that share one port, and their follower.

The supervisor itself serves nothing, so no request can end it. It replaces a child that ends; when the
supervisor ends, however it does, its children stop.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from contextlib import closing, suppress
from multiprocessing.connection import Connection

import msgspec
import structlog

from authz.domain.errors import AuthzError, ErrorReason, InvalidArgumentError
from authz.engine.clock import DecisionClock
from authz.runtime.bind import reserve
from authz.runtime.child import FAILED_START, PROCESSES, Child, SupervisorPipe, run_child, start_forkserver
from authz.runtime.compose import open_view, prepare_database, system_clock
from authz.runtime.envoy import envoy_command
from authz.runtime.follow import run_follower
from authz.runtime.lifecycle import (
    finishes_before,
    ignore_hangups,
    in_background,
    run_abandonable,
    run_until,
    stop_event,
)
from authz.runtime.liveness import beat_forever, notify_systemd
from authz.runtime.maintenance import keep_view_current, make_current
from authz.runtime.metrics import ReplicaCollector, exporting, multiprocess_counts, restore_counts_folder
from authz.runtime.preflight import require_startable
from authz.runtime.server import Server
from authz.runtime.settings import Settings
from authz.runtime.tuning import schedule, tune_interpreter

log = structlog.get_logger()

PROCESSES.set_forkserver_preload(["authz.runtime.preloaded"])

_START_POLL_S = 0.02
_INITIAL_BACKOFF_S = 0.05
_MAX_BACKOFF_S = 5.0
_LONG_LIFE_S = 10.0
_STOP_MARGIN_S = 5.0


class Supervisor:
    """Keeps `settings.workers` workers running and, with `settings.follow`, one follower."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._followers = [Child("follower", follower_process, settings)] if settings.follow else []
        self._workers: list[Child] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.restarts: Counter[tuple[str, str]] = Counter()
        """How often each child was started again, by its name and by the cause: `hung` or `ended`."""
        self._started = False
        self._failed = False

    async def start(self, address: str) -> None:
        """Start the follower and, once it has found out the state of the replica, the workers.

        Raises `InvalidArgumentError` when a process cannot start; that process has logged why.
        """
        settings = msgspec.structs.replace(self._settings, address=address, follow=False)
        self._workers = [Child(f"worker-{n}", worker_process, settings) for n in range(settings.workers)]
        for child in (*self._followers, *self._workers):
            # Prometheus sees a first restart only as an increase from 0.
            self.restarts.update({(child.name, "hung"): 0, (child.name, "ended"): 0})
        self._tasks.append(asyncio.create_task(beat_forever(self._count_beat)))
        await self._start_all(self._followers)
        await self._start_all(self._workers)
        self._started = True

    async def _start_all(self, children: list[Child]) -> None:
        self._tasks += [asyncio.create_task(self._restart_forever(child)) for child in children]
        while not all(child.ready.is_set() for child in children):
            if self._failed:
                raise InvalidArgumentError(
                    ErrorReason.MALFORMED_FIELD,
                    "a process of the service could not start; its log line says why",
                )
            await asyncio.sleep(_START_POLL_S)

    async def _restart_forever(self, child: Child) -> None:
        """Start a child, and again whenever it ends, with exponential backoff while it ends at once."""
        backoff_s = _INITIAL_BACKOFF_S
        while True:
            try:
                restore_counts_folder()
                child.start()
            except Exception:
                # Too few file descriptors or too little memory, say. Nothing else would try again.
                log.exception("process not started", process=child.name)
                backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)
                await asyncio.sleep(backoff_s)
                continue
            code = await child.ended()
            if code == FAILED_START and not self._started:
                self._failed = True
                return
            self.restarts[child.name, "hung" if child.is_hung else "ended"] += 1
            log.error("process ended", process=child.name, exit_code=code)
            lived_s = asyncio.get_running_loop().time() - child.started_at_s
            backoff_s = _INITIAL_BACKOFF_S if lived_s > _LONG_LIFE_S else min(2 * backoff_s, _MAX_BACKOFF_S)
            await asyncio.sleep(backoff_s)

    def _count_beat(self) -> None:
        for child in (*self._followers, *self._workers):
            child.miss_beat()

    def alive(self) -> int:
        return sum(child.is_alive for child in self._workers)

    def not_ready(self) -> str:
        """Why the workers do not answer checks; empty when every one that runs does."""
        if not self._started:
            return "starting"
        silent = [child.name for child in self._workers if child.is_alive and not child.serves]
        if silent or not self.alive():
            return f"not answering checks: {', '.join(silent) or 'every worker'}; the log says why"
        return ""

    async def stop(self) -> None:
        """Let the workers drain, then stop the follower. Kills what does not end in time."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for children in (self._workers, self._followers):
            for child in children:
                child.signal(signal.SIGTERM)
            timeout_s = self._settings.stop_grace_s + _STOP_MARGIN_S
            running = [child for child in children if child.process is not None]
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await asyncio.gather(*(child.ended() for child in running))
            for child in children:
                child.signal(signal.SIGKILL)


async def supervise(settings: Settings) -> None:
    """Serve with many workers until SIGTERM or SIGINT."""
    ignore_hangups()
    stopped = stop_event(signal.SIGTERM, signal.SIGINT)
    require_startable(settings)
    with multiprocess_counts(wanted=bool(settings.metrics_address)) as counts_folder:
        await _supervise(settings, stopped, counts_folder)
    log.info("stopped")


async def _supervise(settings: Settings, stopped: asyncio.Event, counts_folder: str) -> None:
    start_forkserver()
    reserved, address = reserve(settings.address)
    if settings.follow and not await finishes_before(stopped, run_abandonable(prepare_database, settings)):
        return
    supervisor = Supervisor(settings)
    view = open_view(settings)
    clock = DecisionClock(system_clock)
    collector = ReplicaCollector(view, clock, workers=supervisor.alive, restarts=supervisor.restarts)
    probes, not_ready = settings.metrics_address, supervisor.not_ready
    with (
        reserved,
        closing(view),
        in_background(keep_view_current(view, clock)),
        exporting(probes, collector, not_ready=not_ready, counts_folder=counts_folder),
    ):
        try:
            if await finishes_before(stopped, supervisor.start(address)):
                make_current(view, clock)  # or a first scrape would find no policy
                log.info("serving", address=address, transport=settings.transport, workers=settings.workers)
                notify_systemd("READY=1")
                await run_until(stopped)
                notify_systemd("STOPPING=1")
        finally:
            await supervisor.stop()


def worker_process(settings: Settings, supervisor: Connection) -> None:
    """The process of one worker. With Envoy, it becomes Envoy."""
    schedule(settings)
    if settings.transport == "envoy":
        try:
            envoy_command(settings, supervisor=supervisor.fileno()).exec()
        except (AuthzError, OSError) as error:
            run_child(_fail(error), settings, SupervisorPipe(supervisor.fileno()))
    link = SupervisorPipe(supervisor.fileno())
    run_child(_serve(settings, link), settings, link)


async def _fail(error: Exception) -> None:
    raise error


async def _serve(settings: Settings, link: SupervisorPipe) -> None:
    async with Server(settings, on_health=link.report_health) as server:
        await run_worker(server, stop_event(signal.SIGTERM, signal.SIGINT), link)


async def run_worker(server: Server, stopped: asyncio.Event, link: SupervisorPipe) -> None:
    """Serve with the server of a worker, which has started, until `stopped`."""
    log.info("worker serving", process=os.getpid(), policy_version=server.policy_version)
    tune_interpreter()
    link.report_ready()
    await run_until(stopped)


def follower_process(settings: Settings, supervisor: Connection) -> None:
    """The process of the follower. It ignores Ctrl-C: workers still need it while they drain."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = SupervisorPipe(supervisor.fileno())
    run_child(_follow(settings, link), settings, link)


async def _follow(settings: Settings, link: SupervisorPipe) -> None:
    # The supervisor may have started without the database: the follower then prepares it.
    await run_follower(settings, stop_event(signal.SIGTERM), prepared=False, on_initialized=link.report_ready)
