"""A child process of the supervisor, seen from the supervisor (`Child`) and from inside (`run_child`)."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import select
import signal
import tempfile
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

import structlog
import uvloop

from authz.domain.errors import AuthzError
from authz.runtime.folder_lock import lock_temporary_folder
from authz.runtime.liveness import MAX_MISSED_BEATS, MAX_MISSED_BEATS_AT_START, run_beating
from authz.runtime.logs import WRITER, configure_logging, log_uncaught
from authz.runtime.settings import Settings

log = structlog.get_logger()

PROCESSES = multiprocessing.get_context("forkserver")
"""Forks children from a process that only imports: they start fast, and inherit no thread or connection."""

_BEAT, _READY, _SERVES, _REFUSES = b".", b"!", b"+", b"x"
"""What a child writes to its supervisor."""
_READ_BYTES = 4096
_MAX_TEMPORARY_FOLDER_BYTES = 70
"""multiprocessing makes a Unix socket two levels below, and the path of a socket has at most 107 bytes."""


def start_forkserver() -> None:
    """Start the process that forks children, wherever TMPDIR is."""
    if len(os.fsencode(tempfile.gettempdir())) > _MAX_TEMPORARY_FOLDER_BYTES:
        tempfile.tempdir = "/tmp"  # noqa: S108  multiprocessing makes a folder of its own in it
    # These processes run `python -c`, which imports from the working folder first, where others may write.
    os.environ["PYTHONSAFEPATH"] = "1"
    # Ctrl-C reaches every process of a terminal; these end with the supervisor, which lets calls finish. The
    # tracker is started first because its start unblocks the signal.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # It listens in there: without the folder, no process would ever start again.
    lock_temporary_folder(Path(get_temp_dir()))


FAILED_START = 3
"""Exit code of a child that could not start and has logged why: another attempt at once would fail, too."""


class SupervisorPipe:
    """The pipe by which a child tells its supervisor that it runs. It survives an `exec` of the child."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._health = _REFUSES
        # A supervisor that hangs reads nothing, and must not make its children hang, too.
        os.set_blocking(descriptor, False)
        threading.Thread(target=self._stop_with_supervisor, name="supervisor", daemon=True).start()

    def report_ready(self) -> None:
        """Tell that this child has started."""
        self._write(_READY)

    def report_health(self, cause: str) -> None:
        """Tell whether this child answers checks: as `Health` says why it does not."""
        self._health = _REFUSES if cause else _SERVES
        self._write(self._health)

    def beat(self) -> None:
        """Tell that its event loop runs, and whether it answers checks."""
        self._write(_BEAT + self._health)

    def _write(self, what: bytes) -> None:
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._descriptor, what)

    def _stop_with_supervisor(self) -> None:
        end = select.poll()
        # Only for errors: that nobody reads any more is one.
        end.register(self._descriptor, 0)
        end.poll()
        os.kill(os.getpid(), signal.SIGTERM)


class Child:
    """One child process, which can be started again after its end."""

    def __init__(self, name: str, target: Callable[[Settings, Connection], None], settings: Settings) -> None:
        self.name = name
        self._target = target
        self._settings = settings
        self.process: BaseProcess | None = None
        self.ready = asyncio.Event()
        self.started_at_s = 0.0
        self._serves = False
        self.is_hung = False
        self._missed_beats = 0

    def start(self) -> None:
        """Start a new process. Sets `ready` once that process says so."""
        receiver, sender = PROCESSES.Pipe(duplex=False)
        self.ready.clear()
        self.is_hung, self._missed_beats, self._serves = False, 0, False
        self.process = PROCESSES.Process(target=self._target, args=(self._settings, sender), name=self.name)
        try:
            self.process.start()
        except BaseException:
            self.process = None
            receiver.close()
            raise
        finally:
            sender.close()
        loop = asyncio.get_running_loop()
        self.started_at_s = loop.time()
        loop.add_reader(receiver.fileno(), self._receive, receiver)

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.is_alive()

    @property
    def serves(self) -> bool:
        """Whether it runs and answers checks."""
        return self._serves and self.is_alive

    def miss_beat(self) -> None:
        """Count one more interval; set `is_hung` and kill the process after too many without a sign of it.

        SIGKILL also ends a process that was stopped.
        """
        self._missed_beats += 1
        limit = MAX_MISSED_BEATS if self.ready.is_set() else MAX_MISSED_BEATS_AT_START
        if self._missed_beats > limit and not self.is_hung:
            log.error("process hangs and is killed", process=self.name, missed_beats=self._missed_beats)
            self.is_hung = True
            self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal, if the process runs."""
        if self.process is not None and self.process.pid is not None and self.process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    async def ended(self) -> int:
        """Wait for the end of the process; return its exit code, negative for a signal."""
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

    def _receive(self, receiver: Connection) -> None:
        received = os.read(receiver.fileno(), _READ_BYTES)
        self._missed_beats = 0
        if _SERVES in received or _REFUSES in received:
            self._serves = received.rfind(_SERVES) > received.rfind(_REFUSES)
        if _READY in received:
            self.ready.set()
        if not received:
            asyncio.get_running_loop().remove_reader(receiver.fileno())
            receiver.close()


async def exit_code(main: Coroutine[Any, Any, None]) -> int:
    """Run the main coroutine of a process, and log why it failed: 0, `FAILED_START`, or 1 for a fault."""
    try:
        await main
    except AuthzError as error:
        log.error("cannot start", error=error.with_notes())  # noqa: TRY400  says all
        return FAILED_START
    except Exception as error:
        log.critical("uncaught exception", exc_info=error)
        return 1
    return 0


def run_child(main: Coroutine[Any, Any, None], settings: Settings, link: SupervisorPipe) -> None:
    """Run `main` in a child process, and exit. See `run_beating`."""
    configure_logging(settings.log_level)
    log_uncaught()
    try:
        # multiprocessing would print an exception, and not as a line.
        raise SystemExit(uvloop.run(exit_code(run_beating(main, link.beat))))
    finally:
        # A child of multiprocessing runs nothing that is registered for its end.
        WRITER.flush()
