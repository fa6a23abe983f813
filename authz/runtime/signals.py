"""The signals that a running process handles: SIGTERM and SIGINT to stop, SIGHUP to load the policy again."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

import structlog

T = TypeVar("T")

log = structlog.get_logger()


class ReloadSignal:
    """Handles SIGHUP from its creation on, and remembers it until there is a policy to load again.

    Create it before the policy is loaded: otherwise a process that starts while the policy changes could keep
    the old one.
    """

    def __init__(self) -> None:
        self._pending = False
        signal.signal(signal.SIGHUP, self._remember)

    def pass_to(self, reload: Callable[[], None]) -> None:
        """From now on call `reload` in this event loop; at once for a signal that came before."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
        if self._pending:
            self._pending = False
            reload()

    def _remember(self, _number: int, _frame: object) -> None:
        self._pending = True


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


async def run_until_stopped(
    stopped: asyncio.Event, reload_signal: ReloadSignal, reload: Callable[[], None]
) -> None:
    """Return once the process is to stop; reload at SIGHUP."""
    reload_signal.pass_to(reload)
    await stopped.wait()
    log.info("stopping")
