"""The one thread that writes: what waits together is committed together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec

from authz.domain.errors import ConflictError, ErrorReason, UnavailableError
from authz.domain.mutations import ImportBatchResult, WriteRequest
from authz.domain.ports import Directory
from authz.domain.tokens import ConsistencyToken

T = TypeVar("T")

MAX_WRITES_PER_GROUP = 128
MAX_MUTATIONS_PER_GROUP = 1000
_COMPANY = 4
_LINGER_S = 0.003
_LINGER_AT_MOST_S = 0.01
"""Once as many write at once, how long a group waits for the next of those who wrote in the one before, and
for all of them. A group costs as much as ten writes, and while it is written the event loop and it are in
each other's way."""


class _Waiting(msgspec.Struct, Generic[T], frozen=True, eq=False):
    """Work to do, and where its caller waits for what came of it."""

    work: T
    answer: asyncio.Future[Any]


class GroupCommitter:
    """The write side of the service. Belongs to the event loop that first uses it.

    Writes are made in the order in which they came, in groups; groups and batches of imports take
    turns, so that neither starves the other. What was begun is finished even when its caller has gone;
    what still waits for its turn goes with its caller, so that no more can wait than there are calls.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        # A thread that cannot be had is a fault of the start, not of the first who writes.
        self._pool.submit(lambda: None)
        self._writes: deque[_Waiting[WriteRequest]] = deque()
        self._imports: deque[_Waiting[Callable[[], ImportBatchResult]]] = deque()
        self._imports_next = False
        self._expected = 0
        self._lingering: asyncio.TimerHandle | None = None
        self._linger_until = 0.0
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def write(self, request: WriteRequest) -> ConsistencyToken:
        """As `Directory.write`."""
        state: ConsistencyToken = await self._hand_over(self._writes, request)
        return state

    async def import_batch(self, batch: Callable[[], ImportBatchResult]) -> ImportBatchResult:
        """Call what imports one batch, in the write thread."""
        result: ImportBatchResult = await self._hand_over(self._imports, batch)
        return result

    async def close(self) -> None:
        """Finish what was handed over, and refuse more with `UnavailableError`. Idempotent."""
        self._closed = True
        self._end_wait(asyncio.get_running_loop())
        await self._idle.wait()
        await asyncio.to_thread(self._pool.shutdown)

    async def _hand_over(self, queue: deque[_Waiting[T]], work: T) -> Any:
        if self._closed:
            raise UnavailableError(ErrorReason.STORE_UNAVAILABLE, "the server is stopping; try again later")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(work, loop.create_future())
        queue.append(waiting)
        if self._idle.is_set():
            self._idle.clear()
            loop.call_soon(self._go_on, loop)
        elif self._imports or len(self._writes) >= self._expected:
            self._end_wait(loop)
        elif self._lingering is not None:
            self._linger(loop)
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            with suppress(ValueError):  # it has been begun
                queue.remove(waiting)
            raise

    def _go_on(self, loop: asyncio.AbstractEventLoop, seen: int = 0) -> None:
        """Give the thread, which has nothing to do, the next group or batch."""
        waiting = len(self._writes)
        if seen < waiting < MAX_WRITES_PER_GROUP:
            # More came while the loop went round: what has arrived already is to share this group.
            loop.call_soon(self._go_on, loop, waiting)
        elif self._imports and (self._imports_next or not self._writes):
            self._imports_next = False
            self._pool.submit(self._import, loop, self._imports.popleft())
        elif self._expected >= _COMPANY and waiting < self._expected and not (self._imports or self._closed):
            self._linger_until = loop.time() + _LINGER_AT_MOST_S
            self._linger(loop)
        elif self._writes:
            self._imports_next = True
            self._pool.submit(self._write, loop, self._next_group())
        else:
            self._idle.set()

    def _linger(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for the next one of those who wrote in the group before."""
        if self._lingering is not None:
            self._lingering.cancel()
        wake_at = min(loop.time() + _LINGER_S, self._linger_until)
        self._lingering = loop.call_at(wake_at, self._end_wait, loop)

    def _end_wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """If a group waits for company: all have come, or it has waited long enough."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
            self._expected = 0
            loop.call_soon(self._go_on, loop)

    def _finish(
        self, loop: asyncio.AbstractEventLoop, done: Sequence[_Waiting[Any]], outcomes: Sequence[object]
    ) -> None:
        # Not at once: what has already arrived is then in the next group and not in the one after.
        loop.call_soon(self._go_on, loop)
        for waiting, outcome in zip(done, outcomes, strict=True):
            if waiting.answer.done():
                continue  # its caller has gone
            if isinstance(outcome, BaseException):
                waiting.answer.set_exception(outcome)
            else:
                waiting.answer.set_result(outcome)

    def _finish_group(
        self, loop: asyncio.AbstractEventLoop, group: list[_Waiting[WriteRequest]], outcomes: Sequence[object]
    ) -> None:
        self._expected = min(len(group) + len(self._writes), MAX_WRITES_PER_GROUP)
        self._finish(loop, group, outcomes)

    def _next_group(self) -> list[_Waiting[WriteRequest]]:
        group: list[_Waiting[WriteRequest]] = []
        mutations = 0
        while self._writes and len(group) < MAX_WRITES_PER_GROUP:
            mutations += len(self._writes[0].work.mutations)
            if group and mutations > MAX_MUTATIONS_PER_GROUP:
                break
            group.append(self._writes.popleft())
        return group

    def _import(
        self, loop: asyncio.AbstractEventLoop, batch: _Waiting[Callable[[], ImportBatchResult]]
    ) -> None:
        loop.call_soon_threadsafe(self._finish, loop, [batch], [_outcome(batch.work)])

    def _write(self, loop: asyncio.AbstractEventLoop, group: list[_Waiting[WriteRequest]]) -> None:
        requests = [waiting.work for waiting in group]
        shared = _outcome(lambda: self._directory.write_group(requests))
        outcomes: Sequence[object]
        if not isinstance(shared, BaseException):
            outcomes = shared
        elif len(group) == 1 or isinstance(shared, ConflictError | UnavailableError):
            outcomes = [shared] * len(group)
        else:
            # One of them may be to blame, and the others are not to fail with it.
            outcomes = [_outcome(partial(self._write_alone, request)) for request in requests]
        loop.call_soon_threadsafe(self._finish_group, loop, group, outcomes)

    def _write_alone(self, request: WriteRequest) -> ConsistencyToken:
        return self._directory.write(request)


def _outcome(call: Callable[[], T]) -> T | BaseException:
    try:
        return call()
    except BaseException as error:  # noqa: BLE001  handed to whoever waits, as a pool of threads does
        return error
