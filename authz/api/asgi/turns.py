"""Lets connections take turns, so that one with hundreds of calls in flight does not make the others wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable

_STARTS = 16
"""Calls that start in one iteration of the event loop: about half a millisecond of checks."""


class ConnectionTurns:
    """Starts a bounded number of calls in each iteration of the event loop.

    When more wait, each connection has a call started in its turn. What a call does after its first wait is
    not bounded: a call that waits for a database delays no other.
    """

    def __init__(self) -> None:
        self._left = _STARTS
        self._ticks = False
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}
        """By connection, the one whose turn is next first."""

    async def wait(self, connection: Hashable) -> None:
        """Return when the next call of this connection may start."""
        if not self._ticks:
            self._ticks = True
            asyncio.get_running_loop().call_soon(self._tick)
        if self._left and not self._waiting:
            self._left -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(connection, deque()).append(turn)
        await turn

    def _tick(self) -> None:
        idle = self._left == _STARTS
        self._left = _STARTS
        while self._left and self._waiting:
            connection, turns = next(iter(self._waiting.items()))
            del self._waiting[connection]
            turn = turns.popleft()
            if turns:
                self._waiting[connection] = turns
            if not turn.done():  # its call may have been given up
                turn.set_result(None)
                self._left -= 1
        self._ticks = not idle or self._left < _STARTS
        if self._ticks:
            asyncio.get_running_loop().call_soon(self._tick)
