"""Notices what hangs: a process shows its supervisor, or systemd, that its event loop runs; a follower that
makes no progress ends its process, so that its supervisor starts it again.

Times are counted in beats of the observer's own event loop. A machine that was suspended, a supervisor that
was stopped together with its children, or a slow minute that all of them share, does not look like a child
that hangs.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from authz.runtime.lifecycle import in_background
from authz.runtime.logs import WRITER

if TYPE_CHECKING:
    from authz.replica.follower import Follower

log = structlog.get_logger()

BEAT_INTERVAL_S = 1.0
MAX_MISSED_BEATS = 10
"""Far more than garbage collection, a large request or a busy machine takes from an event loop."""
MAX_MISSED_BEATS_AT_START = 60
"""Many children that start at the same time share few cores while each loads its policy."""
STUCK = 70
"""Exit code of a process whose follower makes no progress."""


class Heartbeat:
    """When the event loop of a process ran last, for a probe that asks in another thread."""

    def __init__(self) -> None:
        self._at_s = time.monotonic()

    def beat(self) -> None:
        """Say that the event loop runs."""
        self._at_s = time.monotonic()

    def cause(self) -> str:
        """Why the process is not alive; empty when it is."""
        silence_s = time.monotonic() - self._at_s
        return "the event loop hangs" if silence_s > BEAT_INTERVAL_S * MAX_MISSED_BEATS else ""


async def beat_forever(show: Callable[[], None]) -> None:
    """Call `show` each second, as long as this event loop runs."""
    while True:
        show()
        await asyncio.sleep(BEAT_INTERVAL_S)


async def end_if_stuck(follower: Follower) -> None:
    """End this process, without a stop, once its follower has made no progress for too long."""
    missed = 0
    while missed < MAX_MISSED_BEATS:
        await asyncio.sleep(BEAT_INTERVAL_S)
        missed = missed + 1 if follower.is_overdue() else 0
    log.critical("the follower makes no progress; this process ends, to be started again")
    WRITER.flush()
    # A thread that hangs cannot be joined. The replica is as after a kill: behind, but never wrong.
    os._exit(STUCK)


def notify_systemd(state: str) -> None:
    """Tell systemd that a process is ready (`READY=1`), stops (`STOPPING=1`) or runs (`WATCHDOG=1`).

    Does nothing unless systemd started the process, and wants to know.

    Source: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # A name that begins with `@` is in the abstract namespace.
    path = f"\0{address[1:]}" if address[0] == "@" else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, suppress(OSError):
        notify.setblocking(False)  # systemd may be busy, or be replaced
        notify.sendto(state.encode(), path)


async def run_beating(main: Coroutine[Any, Any, None], beat: Callable[[], None] | None = None) -> None:
    """Run the main coroutine of a process. Meanwhile show each second that its event loop runs: by `beat` to
    its supervisor; without one to systemd, if its watchdog is on (`WatchdogSec=`)."""
    if beat is None and "WATCHDOG_USEC" in os.environ:
        beat = partial(notify_systemd, "WATCHDOG=1")
    with nullcontext() if beat is None else in_background(beat_forever(beat)):
        await main
