"""A query whose answer concurrent callers share."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from authz.domain.errors import no_answer

T = TypeVar("T")

_HANGS_AFTER_S = 2.0
"""Far more than a query of one row takes."""


class SharedQuery(Generic[T]):
    """Gives each caller the answer of a query that began after its call, and runs one query at a time.

    Who calls while a query is under way shares the next one with all who call meanwhile. Callers share an
    error, too. A caller that is cancelled cancels no query. Belongs to one event loop.

    While a query hangs, new callers are refused: each would wait for as long as it may, and together they
    would use up the concurrency limit of calls that need no database.
    """

    def __init__(self, query: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._query = query
        self._running: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None
        self._begun_s: float | None = None
        """When the query that is under way began."""
        self._answered_s = -math.inf

    def answered_within(self, age_s: float) -> bool:
        """Whether a query was answered at most so long ago."""
        return time.monotonic() - self._answered_s <= age_s

    async def answer(self, wait_until: float | None = None) -> T:
        """The answer of the next query. Raises what the query raises, and `UnavailableError`
        (STORE_UNAVAILABLE) at `wait_until`, on the clock of `time.monotonic`, or at once while a query has
        been under way for two seconds."""
        now = time.monotonic()
        if self._begun_s is not None and now - self._begun_s > _HANGS_AFTER_S:
            raise no_answer()
        if self._next is None:
            self._next = asyncio.create_task(self._run_after(self._running))
            # If every caller was cancelled, nobody else retrieves the error.
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
        waiting = self._next
        await asyncio.wait({waiting}, timeout=None if wait_until is None else wait_until - now)
        if not waiting.done():
            raise no_answer()
        return waiting.result()

    async def _run_after(self, before: asyncio.Task[T] | None) -> T:
        if before is not None:
            await asyncio.wait({before})
        self._running, self._next = self._next, None
        self._begun_s = time.monotonic()
        try:
            answer = await self._query()
            self._answered_s = time.monotonic()
            return answer
        finally:
            self._begun_s = None
