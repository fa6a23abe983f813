"""Many workers: processes that share one port and one replica, beside one that keeps it up to date.

The supervisor itself serves nothing, so that nothing a caller sends can end it. A child that ends is
replaced; when the supervisor ends, however it does, its children stop.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import msgspec
import structlog
import uvloop

from authz.domain.errors import AuthzError, ErrorReason, InvalidArgumentError
from authz.domain.vocabulary import Vocabulary
from authz.runtime.logs import configure_logging
from authz.runtime.metrics import exporting
from authz.runtime.server import (
    Server,
    load_server_policy,
    open_follower,
    open_view,
    prepare_database,
    schedule_as_batch,
    system_clock,
    tune_interpreter,
)
from authz.runtime.settings import Settings
from authz.runtime.signals import ReloadSignal, run_in_thread, run_until_stopped
from authz.store import open_store

log = structlog.get_logger()

_processes = multiprocessing.get_context("forkserver")
# Children are forked from a process that has done nothing but import, so that they start at once, and
# without a thread or a connection of anybody else's.
_processes.set_forkserver_preload([__name__])

_START_POLL_S = 0.02
_INITIAL_BACKOFF_S = 0.05
_MAX_BACKOFF_S = 5.0
_LONG_LIFE_S = 10.0
_STOP_MARGIN_S = 5.0
_FAILED_START = 3
"""Exit code of a child that could not start, and said why: the next would fare no better at once."""


class Child:
    """One of the supervisor's processes: started, watched and replaced."""

    def __init__(self, name: str, target: Callable[[Settings, Connection], None], settings: Settings) -> None:
        self.name = name
        self._target = target
        self._settings = settings
        self.process: BaseProcess | None = None
        self.ready = asyncio.Event()
        self.started_at_s = 0.0

    def start(self) -> None:
        """Begin a new process."""
        theirs: Connection
        ours, theirs = _processes.Pipe(duplex=False)
        self.ready.clear()
        self.process = _processes.Process(
            target=self._target,
            args=(self._settings, theirs),
            name=self.name,
        )
        try:
            self.process.start()
        except BaseException:
            self.process = None
            ours.close()
            raise
        finally:
            theirs.close()
        loop = asyncio.get_running_loop()
        self.started_at_s = loop.time()
        loop.add_reader(ours.fileno(), self._hear, ours)

    def signal(self, number: int) -> None:
        """Send a signal, if there is somebody to get it."""
        if self.process is not None and self.process.pid is not None and self.process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    async def ended(self) -> int:
        """Wait for the end of the process; its exit code, negative for a signal."""
        assert self.process is not None  # noqa: S101  started before it is waited for
        process = self.process
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(process.sentinel)
        process.join()
        return process.exitcode or 0

    def _hear(self, ours: Connection) -> None:
        asyncio.get_running_loop().remove_reader(ours.fileno())
        with suppress(EOFError):
            ours.recv()
            self.ready.set()
        ours.close()


class Supervisor:
    """Keeps one follower and `settings.workers` workers running."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._follower = Child("follower", run_follower, settings)
        self._workers: list[Child] = []
        self._keeping: list[asyncio.Task[None]] = []
        self._started = False
        self._failed = False

    async def start(self, address: str) -> None:
        """Start the follower and, once it has found out how the replica is, the workers.

        Raises `InvalidArgumentError` when one of them cannot start; it has said why.
        """
        settings = msgspec.structs.replace(self._settings, address=address)
        self._workers = [Child(f"worker-{n}", run_worker, settings) for n in range(self._settings.workers)]
        await self._begin([self._follower])
        await self._begin(self._workers)
        self._started = True

    async def _begin(self, children: list[Child]) -> None:
        self._keeping += [asyncio.create_task(self._keep(child)) for child in children]
        while not all(child.ready.is_set() for child in children):
            if self._failed:
                raise InvalidArgumentError(
                    ErrorReason.MALFORMED_FIELD, "a process of the service could not start; it has said why"
                )
            await asyncio.sleep(_START_POLL_S)

    async def _keep(self, child: Child) -> None:
        """Start a child, and again whenever it ends, with a pause that grows while it ends at once."""
        backoff_s = _INITIAL_BACKOFF_S
        while True:
            try:
                child.start()
            except Exception:
                # For want of a file or of memory, say; nobody else would try again.
                log.exception("process not started", process=child.name)
                backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)
                await asyncio.sleep(backoff_s)
                continue
            code = await child.ended()
            if code == _FAILED_START and not self._started:
                self._failed = True
                return
            log.error("process ended", process=child.name, exit_code=code)
            lived_s = asyncio.get_running_loop().time() - child.started_at_s
            backoff_s = _INITIAL_BACKOFF_S if lived_s > _LONG_LIFE_S else min(2 * backoff_s, _MAX_BACKOFF_S)
            await asyncio.sleep(backoff_s)

    def alive(self) -> int:
        """How many workers serve."""
        return sum(child.process is not None and child.process.is_alive() for child in self._workers)

    def reload_policy(self) -> None:
        """Let every worker load its policy again."""
        for child in self._workers:
            child.signal(signal.SIGHUP)

    async def stop(self) -> None:
        """Let the workers drain, then stop the follower. Whoever does not end in time is killed."""
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        for children in (self._workers, [self._follower]):
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
    configure_logging(settings.log_level)
    # Whoever is forked ignores it until it can remember it: until then it has loaded nothing, either.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    forkserver.ensure_running()
    reload_signal = ReloadSignal()
    load_server_policy(settings)
    await asyncio.to_thread(prepare_database, settings)
    reserved, address = reserve(settings.address)
    supervisor = Supervisor(settings)
    view = open_view(settings)
    with reserved, exporting(settings.metrics_address, view, supervisor.alive):
        try:
            await supervisor.start(address)
            log.info("serving", address=address, workers=settings.workers)
            await run_until_stopped(reload_signal, supervisor.reload_policy)
        finally:
            await supervisor.stop()
            view.close()


def reserve(address: str) -> tuple[socket.socket, str]:
    """A bound socket that keeps a port for the workers, and the address with that port.

    Raises `InvalidArgumentError` for what is in use, or cannot be shared.
    """
    host, _, port = address.rpartition(":")
    if address.startswith("unix:"):
        raise _cannot_listen(address, "processes cannot share a socket of the file system")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as alone:
            # Sharing would also succeed beside another service that shares: ask without it first.
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(place)
        shared = socket.socket(family, kind, protocol)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind(place)
    except (OSError, ValueError) as error:
        raise _cannot_listen(address, str(error)) from None
    return shared, f"{host}:{shared.getsockname()[1]}"


def _cannot_listen(address: str, cause: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        ErrorReason.MALFORMED_FIELD,
        f"workers cannot listen at `{address}`: {cause}; set AUTHZ_ADDRESS to a free host:port",
        field="AUTHZ_ADDRESS",
    )


def run_worker(settings: Settings, ready: Connection) -> None:
    """The process of a worker."""
    reload_signal = ReloadSignal()
    if settings.schedule_as_batch:
        schedule_as_batch()
    _begin_child(settings)
    _report_faults(lambda: uvloop.run(_serve(settings, reload_signal, ready)))


async def _serve(settings: Settings, reload_signal: ReloadSignal, ready: Connection) -> None:
    async with Server(settings, follows=False) as server:
        log.info("worker serving", process=os.getpid(), policy_version=server.checker.policy.version)
        tune_interpreter()
        ready.send(True)
        await run_until_stopped(reload_signal, server.reload_policy)


def run_follower(settings: Settings, ready: Connection) -> None:
    """The process of the follower. It outlives a Ctrl-C, which workers still drain after."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _begin_child(settings)
    _report_faults(lambda: _follow(settings, ready))


def _follow(settings: Settings, ready: Connection) -> None:
    store = open_store(
        settings.database_url,
        # Who writes nothing needs no policy, and is not to fail with one.
        vocabulary=lambda: Vocabulary({}, {}),
        clock=system_clock,
        migrate=False,
        verify=False,
    )
    # The supervisor may have begun without the database: whoever follows it first makes sure of it.
    follower = open_follower(settings, store, prepared=False)

    def tell() -> None:
        follower.initialized.wait()
        ready.send(True)

    threading.Thread(target=tell, daemon=True).start()

    def stop() -> None:
        follower.stop()
        # Not held up by a database that gives no answer.
        store.directory.abort_connections(permanently=True)

    run_in_thread(follower.run, stop)
    store.close()


def _begin_child(settings: Settings) -> None:
    configure_logging(settings.log_level)
    threading.Thread(target=_stop_with_parent, daemon=True).start()


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _report_faults(run: Callable[[], None]) -> None:
    try:
        run()
    except AuthzError as error:
        log.error("cannot start", error=error.message)  # noqa: TRY400  the message says all
        raise SystemExit(_FAILED_START) from None
