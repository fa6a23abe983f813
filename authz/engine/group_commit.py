"""Group commit: one thread writes, and commits the writes that wait in one transaction.

The commit delay follows PostgreSQL: if enough writes are in progress, a group waits for more. It ends as soon
as all of them wait, so callers that write one after another share each commit.
Source: https://www.postgresql.org/docs/current/wal-configuration.html
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from authz.domain.errors import ConflictError, ErrorReason, UnavailableError
from authz.domain.mutations import WriteRequest
from authz.domain.tokens import ConsistencyToken
from authz.store.directory import SqlDirectory
from authz.telemetry.metrics import GROUP_COMMIT_WRITES

T = TypeVar("T")

RequirePermitted: TypeAlias = Callable[[], Awaitable[None]]
"""Raises an `AuthzError` when the caller of a write may no longer make it."""

CHECK_INTERVAL_S = 0.5
MAX_WRITES_PER_GROUP = 128
MAX_MUTATIONS_PER_GROUP = 1000


class _Waiting(msgspec.Struct, Generic[T], frozen=True, eq=False):
    """Work to do, and the future of its caller."""

    work: T
    answer: asyncio.Future[Any]


class GroupCommitter:
    """Commits the writes of one process. Belongs to the event loop that first uses it.

    Commits writes in the order of their arrival, in groups; groups and batches of imports and removals take
    turns, so that neither starves the other. Writes that only take access away go before all that wait, but
    between two groups of them something else has its turn. If at least `commit_siblings` writes were in
    progress when a group was committed, the next group is delayed until as many wait: for at most
    `commit_delay_s`, and not while other work waits. A write or batch that has begun is finished even when
    its caller has gone; one that still waits is dropped with its caller, so that no more can wait than there
    are calls.
    """

    def __init__(
        self, directory: SqlDirectory, *, commit_siblings: int = 4, commit_delay_s: float = 0.003
    ) -> None:
        self._directory = directory
        self._commit_siblings = commit_siblings
        self._commit_delay_s = commit_delay_s
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        # Start the thread now: if there can be none, the start of the server fails, not its first write.
        self._pool.submit(lambda: None)
        self._writes: deque[_Waiting[WriteRequest]] = deque()
        self._revocations: deque[_Waiting[WriteRequest]] = deque()
        self._revocations_last = False
        self._batches: deque[_Waiting[Callable[[], Any]]] = deque()
        self._batch_next = False
        self._in_progress = 0
        """Writes in the last group and those that waited when it ended, up to the size of a group; 0 after a
        delay or a batch."""
        self._delay: asyncio.TimerHandle | None = None
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def write(
        self, request: WriteRequest, require_permitted: RequirePermitted | None = None
    ) -> ConsistencyToken:
        """As `SqlDirectory.write`. Raises what `require_permitted` does until it begins, and drops it."""
        queue = self._revocations if request.takes_access_away else self._writes
        state: ConsistencyToken = await self._hand_over(queue, request, require_permitted)
        return state

    async def run_batch(self, batch: Callable[[], T], require_permitted: RequirePermitted | None = None) -> T:
        """Call `batch`, which writes a bounded batch in one transaction, in the write thread. Raises what
        `require_permitted` does until it begins, and drops it."""
        result: T = await self._hand_over(self._batches, batch, require_permitted)
        return result

    async def close(self) -> None:
        """Finish what was handed over, and refuse more with `UnavailableError`. Idempotent."""
        self._closed = True
        await self._idle.wait()
        await asyncio.to_thread(self._pool.shutdown)

    async def _hand_over(
        self, queue: deque[_Waiting[T]], work: T, require_permitted: RequirePermitted | None = None
    ) -> Any:
        if require_permitted is not None:
            await require_permitted()
        if self._closed:
            # Not SERVER_STOPPING, which says that nothing was done: this may be a later part of a call.
            raise UnavailableError(ErrorReason.STORE_UNAVAILABLE, "the server is stopping; try again later")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(work, loop.create_future())
        queue.append(waiting)
        if self._idle.is_set():
            self._idle.clear()
            loop.call_soon(self._start_next, loop)
        elif self._delay is not None and (queue is not self._writes or len(queue) >= self._in_progress):
            self._delay.cancel()
            self._delay = None
            loop.call_soon(self._end_delay, loop)
        try:
            if require_permitted is not None:
                await _checked_while_in(queue, waiting, require_permitted)
            return await waiting.answer
        except (asyncio.CancelledError, Exception):
            with suppress(ValueError):  # it has begun
                queue.remove(waiting)
            _abandon(waiting.answer)
            raise

    def _start_next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the write thread, which is idle, the next group or batch."""
        if self._revocations and not (self._revocations_last and (self._writes or self._batches)):
            self._revocations_last = True
            self._pool.submit(self._write, loop, _next_group(self._revocations))
        elif self._batches and (self._batch_next or not self._writes):
            self._batch_next, self._revocations_last, self._in_progress = False, False, 0
            self._pool.submit(self._run_batch, loop, self._batches.popleft())
        elif not self._writes:
            self._idle.set()
        elif self._commit_siblings <= self._in_progress > len(self._writes) and not self._batches:
            self._delay = loop.call_later(self._commit_delay_s, self._end_delay, loop)
        else:
            self._batch_next, self._revocations_last = True, False
            self._pool.submit(self._write, loop, _next_group(self._writes))

    def _end_delay(self, loop: asyncio.AbstractEventLoop) -> None:
        self._delay, self._in_progress = None, 0
        self._start_next(loop)

    def _finish(
        self, loop: asyncio.AbstractEventLoop, done: Sequence[_Waiting[Any]], outcomes: Sequence[object]
    ) -> None:
        # In the next iteration of the loop: requests that it has already received join the next group.
        loop.call_soon(self._start_next, loop)
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
        self._in_progress = min(len(group) + len(self._writes), MAX_WRITES_PER_GROUP)
        self._finish(loop, group, outcomes)

    def _run_batch(self, loop: asyncio.AbstractEventLoop, batch: _Waiting[Callable[[], Any]]) -> None:
        loop.call_soon_threadsafe(self._finish, loop, [batch], [_outcome(batch.work)])

    def _write(self, loop: asyncio.AbstractEventLoop, group: list[_Waiting[WriteRequest]]) -> None:
        requests = [waiting.work for waiting in group]
        GROUP_COMMIT_WRITES.observe(len(requests))
        shared = _outcome(lambda: self._directory.write_group(requests))
        outcomes: Sequence[object]
        if not isinstance(shared, BaseException):
            outcomes = shared
        elif len(group) == 1 or isinstance(shared, ConflictError | UnavailableError):
            outcomes = [shared] * len(group)
        else:
            # One of them may be the cause, and the others must not fail with it.
            outcomes = [_outcome(partial(self._directory.write, request)) for request in requests]
        loop.call_soon_threadsafe(self._finish_group, loop, group, outcomes)


def _abandon(answer: asyncio.Future[Any]) -> None:
    """Nobody awaits the answer any more: asyncio would log a failure as one that was overlooked."""
    if not answer.cancel() and not answer.cancelled():
        answer.exception()


async def _checked_while_in(
    queue: deque[_Waiting[T]], waiting: _Waiting[T], require_permitted: RequirePermitted
) -> None:
    """Return once a write has begun. Others may keep it waiting for seconds, in which its caller may lose the
    right to it."""
    while True:
        await asyncio.wait((waiting.answer,), timeout=CHECK_INTERVAL_S)
        if waiting not in queue:
            return
        await require_permitted()


def _next_group(waiting: deque[_Waiting[WriteRequest]]) -> list[_Waiting[WriteRequest]]:
    group: list[_Waiting[WriteRequest]] = []
    mutations = 0
    while waiting and len(group) < MAX_WRITES_PER_GROUP:
        mutations += len(waiting[0].work.mutations)
        if group and mutations > MAX_MUTATIONS_PER_GROUP:
            break
        group.append(waiting.popleft())
    return group


def _outcome(call: Callable[[], T]) -> T | BaseException:
    try:
        return call()
    except BaseException as error:  # noqa: BLE001  raised in the caller that waits, as a thread pool does
        return error
