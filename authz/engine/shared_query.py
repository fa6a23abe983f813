"""A query whose answer concurrent callers share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SharedQuery(Generic[T]):
    """Gives each caller the answer of a query that began after its call, and runs one query at a time.

    Who calls while a query is under way shares the next one with all who call meanwhile. Callers share an
    error, too. A caller that is cancelled cancels no query. Belongs to one event loop.
    """

    def __init__(self, query: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._query = query
        self._running: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    async def answer(self) -> T:
        """The answer of the next query. Raises what the query raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._run_after(self._running))
            # If every caller was cancelled, nobody else retrieves the error.
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._next)

    async def _run_after(self, before: asyncio.Task[T] | None) -> T:
        if before is not None:
            await asyncio.wait({before})
        self._running, self._next = self._next, None
        return await self._query()
