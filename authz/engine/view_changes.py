"""Wakes the calls that wait for the replica: one poll of it for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from authz.domain.ports import View

_INITIAL_BACKOFF_S = 0.001
MAX_BACKOFF_S = 0.016


class ViewChanges:
    """Polls a view while calls wait for it to change. For the event loop.

    A thousand idle watches cost as many polls as one. While nothing changes, the polls slow down from one in
    1 ms to one in 16 ms; they are fast again for each call that begins to wait.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._waiting: set[asyncio.Future[None]] = set()
        self._seen: object = None
        """What the view held when those that wait began to, or when it was last polled."""
        self._timer: asyncio.TimerHandle | None = None
        self._backoff_s = _INITIAL_BACKOFF_S

    def look(self) -> object:
        """What the view holds: a value that differs after a change for which a call may wait."""
        return _outcome(self._view.revision), _outcome(lambda: self._view.snapshot().state)

    async def wait(self, seen: object, timeout_s: float) -> None:
        """Return once `look` no longer gives `seen`, or after the timeout. May return earlier."""
        if seen != self._seen:
            self._wake_all(seen)
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        self._poll_within(_INITIAL_BACKOFF_S)
        try:
            await asyncio.wait((waiter,), timeout=timeout_s)
        finally:
            self._waiting.discard(waiter)
            if not self._waiting and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _poll_within(self, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + delay_s:
                return
            self._timer.cancel()
        self._backoff_s = delay_s
        self._timer = loop.call_later(delay_s, self._poll)

    def _poll(self) -> None:
        self._timer = None
        seen = self.look()
        if seen != self._seen:
            self._wake_all(seen)
        else:
            self._poll_within(min(2 * self._backoff_s, MAX_BACKOFF_S))

    def _wake_all(self, seen: object) -> None:
        self._seen = seen
        for waiter in self._waiting:
            waiter.set_result(None)
        self._waiting.clear()


def _outcome(read: Callable[[], object]) -> object:
    try:
        return read()
    except Exception as error:  # noqa: BLE001  a call that waits reads the view again, and raises it
        return type(error)
