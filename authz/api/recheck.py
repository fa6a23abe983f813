"""Long calls end when their caller may no longer make them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import TypeVar

from authz.domain.errors import AuthzError, UnavailableError

ResultT = TypeVar("ResultT")

INTERVAL_S = 0.5
MAX_UNKNOWN_S = 5.0
"""How long a call continues while nothing tells whether its caller may make it. A file of keys that is being
written is broken only for a moment."""


class Recheck:
    """Checks again and again that the caller may still make a call that lasts."""

    def __init__(self, require: Callable[[], Awaitable[None]]) -> None:
        """`require` raises the error that ends the call; `UnavailableError` if nothing tells now."""
        self._require = require
        self._permitted_at = time.monotonic()
        self._next_at = self._permitted_at + INTERVAL_S

    async def require(self, *, at_once: bool = False) -> None:
        """Raise if the caller may no longer make the call; asks if the last answer is old, or `at_once`."""
        if time.monotonic() < self._next_at and not at_once:
            return
        try:
            await self._require()
        except UnavailableError:
            if time.monotonic() - self._permitted_at > MAX_UNKNOWN_S:
                raise
        except AuthzError as error:
            error.ended_call = True
            raise
        else:
            self._permitted_at = time.monotonic()
        self._next_at = time.monotonic() + INTERVAL_S

    async def result_of(self, running: Awaitable[ResultT]) -> ResultT:
        """The result of `running`. When the caller may no longer make the call, cancels it and raises why."""
        task = asyncio.ensure_future(running)
        try:
            while True:
                left_s = max(0.0, self._next_at - time.monotonic())
                done, _ = await asyncio.wait((task,), timeout=left_s)
                if done:
                    return task.result()
                await self.require()
        finally:
            task.cancel()

    async def each(self, requests: AsyncIterable[ResultT]) -> AsyncIterator[ResultT]:
        """The requests, until the caller may no longer make the call; then raises why.

        What is done with a request is finished, and so the call can say what it did.
        """
        left = aiter(requests)
        while True:
            try:
                request = await self.result_of(anext(left))
            except StopAsyncIteration:
                return
            await self.require()
            yield request
