"""The signals that a running process handles: SIGTERM and SIGINT to stop, SIGHUP to load the policy again."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import structlog

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


async def run_until_stopped(reload_signal: ReloadSignal, reload: Callable[[], None]) -> None:
    """Return at SIGTERM or SIGINT; reload at SIGHUP."""
    stopped = stop_event(signal.SIGTERM, signal.SIGINT)
    reload_signal.pass_to(reload)
    await stopped.wait()
    log.info("stopping")
