"""What an operator tells a running process: SIGTERM and SIGINT to stop, SIGHUP to load the policy again."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger()


class ReloadSignal:
    """Takes SIGHUP from when it is made, and keeps it until there is a policy to load again.

    Make it before the policy is loaded: a process that starts while the policy is changed would else go on
    with the old one.
    """

    def __init__(self) -> None:
        self._heard = False
        signal.signal(signal.SIGHUP, self._hear)

    def pass_to(self, reload: Callable[[], None]) -> None:
        """From now on call `reload` in this event loop, at once for what was heard before."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
        if self._heard:
            self._heard = False
            reload()

    def _hear(self, _number: int, _frame: object) -> None:
        self._heard = True


async def run_until_stopped(reload_signal: ReloadSignal, reload: Callable[[], None]) -> None:
    """Return at SIGTERM or SIGINT; reload at SIGHUP."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    reload_signal.pass_to(reload)
    await stopped.wait()
    log.info("stopping")


def run_in_thread(run: Callable[[], None], stop: Callable[[], None]) -> None:
    """Run something that blocks until SIGTERM, or until it ends; for a process that does nothing else.

    The signal is waited for, not handled: a handler would run in the midst of whatever the main thread does,
    and could not take a lock that is held there.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))

    def run_to_the_end() -> None:
        try:
            run()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    running = threading.Thread(target=run_to_the_end, daemon=True)
    running.start()
    signal.sigwait((signal.SIGTERM,))
    stop()
    running.join()
