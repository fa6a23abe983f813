"""Wakes who waits for the next revision."""

from __future__ import annotations

import asyncio

from authz.domain.ports import Directory
from authz.service.reading import Reading

_POLL_S = 0.02


class HeadPoll:
    """Asks the directory for its head, once for all who wait, and only while somebody waits."""

    def __init__(self, directory: Directory, reading: Reading) -> None:
        self._directory = directory
        self._reading = reading
        self._turn = asyncio.Lock()
        self._head = 0
        self._failure: Exception | None = None
        self._read_at = float("-inf")

    async def wait_beyond(self, revision: int, timeout_s: float) -> bool:
        """True once a revision greater than the given may be readable, False after `timeout_s`.

        Raises `UnavailableError` when the database is away.
        """
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + timeout_s
        while await self._recent_head() <= revision:
            left_s = give_up_at - clock()
            if left_s <= 0:
                return False
            await asyncio.sleep(min(_POLL_S, left_s))
        return True

    async def _recent_head(self) -> int:
        clock = asyncio.get_running_loop().time
        asked_at = clock()
        async with self._turn:
            stale = clock() - self._read_at >= _POLL_S or self._failure is not None
            if stale and self._read_at < asked_at:
                await self._read_head()
                self._read_at = clock()
            if self._failure is not None:
                raise self._failure
            return self._head

    async def _read_head(self) -> None:
        # Kept for those who wait for this: a database that is away takes seconds to say so, and each would
        # ask anew. Not for who comes later, when it may be back.
        try:
            self._head, self._failure = (await self._reading.run(self._directory.head)).revision, None
        except Exception as failure:  # noqa: BLE001  raised by the caller, to everyone
            self._failure = failure
