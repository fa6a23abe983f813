"""Runs a process until a signal stops it, and background tasks next to its main coroutine.

SIGTERM and SIGINT stop a process. It ignores SIGHUP."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog

T = TypeVar("T")

log = structlog.get_logger()


def ignore_hangups() -> None:
    """Ignore SIGHUP, here and in every child: it would end the process, and there is no file to reload."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def stop_event(*numbers: int) -> asyncio.Event:
    """An event that any of these signals sets."""
    stopped = asyncio.Event()
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return stopped


async def finishes_before(stopped: asyncio.Event, work: Awaitable[object]) -> bool:
    """Run `work`, and return true. If the event comes first, cancel `work` and return false."""
    task, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        return task.done()
    finally:
        stopping.cancel()
        task.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)


async def run_abandonable(function: Callable[..., T], *arguments: object) -> T:
    """Run a function that may wait for a database for long. Cancelled, it is left to end with the process."""
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome.set_result(function(*arguments))
        except BaseException as error:  # noqa: BLE001  raised where it is waited for
            outcome.set_exception(error)

    # Python waits at its end for the threads of `asyncio.to_thread`, but not for a daemon.
    threading.Thread(target=run, name=function.__name__, daemon=True).start()
    return await asyncio.wrap_future(outcome)


@contextmanager
def in_background(work: Coroutine[Any, Any, None]) -> Iterator[None]:
    """Run a coroutine as a task until the block ends."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()


async def run_until(stopped: asyncio.Event) -> None:
    """Return once the process is to stop."""
    await stopped.wait()
    log.info("stopping")
