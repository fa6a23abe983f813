"""Lets large calls and small ones take turns on the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_SLICE = 20
"""Items between two turns: about a quarter of a millisecond of work."""
_ITERATIONS_BETWEEN = 5
"""Iterations of the event loop in which gRPC accepts a call."""
LIGHT_SLICE = 128
"""As many that take two or three microseconds each, as those of lists do. More than a page of the default
size, which then takes no turn."""
_STEPS = 50
"""Steps between two turns, each of some microseconds."""
_MAX_SLICE_S = 0.002
"""After which a slice ends with fewer items: one that compiles the policy of a course takes milliseconds."""


class Turns:
    """The turns of the large calls of one event loop.

    However many large calls there are, only one of them does a slice of its work before small calls have had
    the time to be accepted. A call of few items needs no turn.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def collect(self, items: Iterable[T], *, slice_size: int = _SLICE) -> list[T]:
        """All items, in order, produced in slices."""
        left = iter(items)
        found, is_more = _slice_of(left, slice_size)
        while is_more:
            async with self._turn:
                # The lock is fair, and its holder leaves the loop to all others first.
                for _ in range(_ITERATIONS_BETWEEN):
                    await asyncio.sleep(0)
                part, is_more = _slice_of(left, slice_size)
            found += part
        return found

    async def parts(self, steps: Iterable[T]) -> AsyncIterator[list[T]]:
        """What all steps give, in order, a slice at a time: for results that do not fit in memory."""
        left, is_more = iter(steps), True
        while is_more:
            async with self._turn:
                await asyncio.sleep(0)
                part, is_more = _slice_of(left, _STEPS)
            if part:
                yield part


def _slice_of(items: Iterator[T], size: int) -> tuple[list[T], bool]:
    """The next items, up to `size` of them, and whether there may be more."""
    end_at = time.perf_counter() + _MAX_SLICE_S
    found: list[T] = []
    for item in items:
        found.append(item)
        if len(found) == size or time.perf_counter() > end_at:
            return found, True
    return found, False
