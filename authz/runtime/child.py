"""A child process of the supervisor, seen from the supervisor (`Child`) and from inside (`run_child`)."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import multiprocessing.sharedctypes
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import structlog
import uvloop

from authz.domain.errors import AuthzError
from authz.runtime.liveness import MAX_MISSED_BEATS, MAX_MISSED_BEATS_AT_START, beat_forever
from authz.runtime.logs import WRITER, configure_logging, log_uncaught
from authz.runtime.settings import Settings

log = structlog.get_logger()

PROCESSES = multiprocessing.get_context("forkserver")
"""Forks children from a process that only imports: they start fast, and inherit no thread or connection."""

_BEAT, _READY = b".", b"!"
"""What a child writes to its supervisor."""
_READ_BYTES = 4096
_MAX_TEMPORARY_FOLDER_BYTES = 70
"""multiprocessing makes a Unix socket two levels below, and the path of a socket has at most 107 bytes."""


def start_forkserver() -> None:
    """Start the process that forks children, wherever TMPDIR is."""
    if len(os.fsencode(tempfile.gettempdir())) > _MAX_TEMPORARY_FOLDER_BYTES:
        tempfile.tempdir = "/tmp"  # noqa: S108  multiprocessing makes a folder of its own in it
    forkserver.ensure_running()


FAILED_START = 3
"""Exit code of a child that could not start and has logged why: another attempt at once would fail, too."""


class Link(NamedTuple):
    """What a child has of its supervisor."""

    supervisor: Connection
    """Where the child says that it is ready, and that it still runs."""
    lost_lines: ctypes.c_ulonglong
    """How many lines of the log the child and those before it have lost: shared memory."""


class Child:
    """One child process, which can be started again after its end."""

    def __init__(self, name: str, target: Callable[[Settings, Link], None], settings: Settings) -> None:
        self.name = name
        self._target = target
        self._settings = settings
        self.process: BaseProcess | None = None
        self.ready = asyncio.Event()
        self.started_at_s = 0.0
        self.lost_lines = multiprocessing.sharedctypes.RawValue(ctypes.c_ulonglong)
        self.is_hung = False
        self._missed_beats = 0

    def start(self) -> None:
        """Start a new process. Sets `ready` once that process says so."""
        receiver, sender = PROCESSES.Pipe(duplex=False)
        self.ready.clear()
        self.is_hung, self._missed_beats = False, 0
        link = Link(sender, self.lost_lines)
        self.process = PROCESSES.Process(target=self._target, args=(self._settings, link), name=self.name)
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
        if _READY in received:
            self.ready.set()
        if not received:
            asyncio.get_running_loop().remove_reader(receiver.fileno())
            receiver.close()


def report_ready(supervisor: Connection) -> None:
    """Tell the supervisor that this child has started."""
    _report(supervisor, _READY)


def run_child(settings: Settings, link: Link, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `main` in a child process, and show the supervisor each second that its event loop runs; stop it
    when the supervisor ends, however that ends."""
    WRITER.lost = link.lost_lines
    configure_logging(settings.log_level)
    log_uncaught()
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    os.set_blocking(link.supervisor.fileno(), False)
    try:
        uvloop.run(_beating(link.supervisor, main()))
    except AuthzError as error:
        log.error("cannot start", error=error.message)  # noqa: TRY400  the message says all
        raise SystemExit(FAILED_START) from None
    except Exception as error:
        # multiprocessing would print it, and not as a line.
        log.critical("uncaught exception", exc_info=error)
        raise SystemExit(1) from None
    finally:
        # A child of multiprocessing runs nothing that is registered for its end.
        WRITER.flush()


async def _beating(supervisor: Connection, main: Coroutine[Any, Any, None]) -> None:
    beating = asyncio.create_task(beat_forever(partial(_report, supervisor, _BEAT)))
    try:
        await main
    finally:
        beating.cancel()


def _report(supervisor: Connection, what: bytes) -> None:
    # A supervisor that hangs reads nothing, and must not make its children hang, too.
    with suppress(BlockingIOError, BrokenPipeError):
        os.write(supervisor.fileno(), what)


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
