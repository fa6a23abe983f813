"""The one thread that writes: what waits together is committed together."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec

from authz.domain.errors import ConflictError, UnavailableError
from authz.domain.mutations import ImportBatchResult, WriteRequest
from authz.domain.ports import Directory

T = TypeVar("T")

MAX_WRITES_PER_GROUP = 128
MAX_MUTATIONS_PER_GROUP = 1000


class _Waiting(msgspec.Struct, Generic[T], frozen=True, eq=False):
    """Work to do, and where its caller waits for what came of it."""

    work: T
    answer: asyncio.Future[Any]


class Writing:
    """The write side of the service.

    Writes are made in the order in which they came, grouped; between two groups one batch of an import
    has its turn, so that neither starves the other. What was handed over is finished even when its
    caller has gone: half a wait is not half a write. Serves one event loop.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._lock = threading.Lock()
        self._writes: deque[_Waiting[WriteRequest]] = deque()
        self._imports: deque[_Waiting[Callable[[], ImportBatchResult]]] = deque()
        self._works = False

    async def write(self, request: WriteRequest) -> int:
        """As `Directory.write`."""
        revision: int = await self._hand_over(self._writes, request)
        return revision

    async def import_batch(self, batch: Callable[[], ImportBatchResult]) -> ImportBatchResult:
        """Call what imports one batch, in the write thread."""
        result: ImportBatchResult = await self._hand_over(self._imports, batch)
        return result

    def close(self) -> None:
        """Finish what was handed over. Blocks; idempotent."""
        self._pool.shutdown()

    async def _hand_over(self, queue: deque[_Waiting[T]], work: T) -> Any:
        waiting = _Waiting(work, asyncio.get_running_loop().create_future())
        with self._lock:
            queue.append(waiting)
            if not self._works:
                self._pool.submit(self._work)
                self._works = True
        return await waiting.answer

    def _work(self) -> None:
        while True:
            with self._lock:
                group = self._next_group()
                batch = self._imports.popleft() if self._imports else None
                if not group and batch is None:
                    self._works = False
                    return
            if group:
                self._write(group)
            if batch is not None:
                _answer([batch], [_outcome(batch.work)])

    def _next_group(self) -> list[_Waiting[WriteRequest]]:
        group: list[_Waiting[WriteRequest]] = []
        mutations = 0
        while self._writes and len(group) < MAX_WRITES_PER_GROUP:
            mutations += len(self._writes[0].work.mutations)
            if group and mutations > MAX_MUTATIONS_PER_GROUP:
                break
            group.append(self._writes.popleft())
        return group

    def _write(self, group: list[_Waiting[WriteRequest]]) -> None:
        requests = [waiting.work for waiting in group]
        shared = _outcome(partial(self._directory.write_group, requests))
        if not isinstance(shared, BaseException):
            _answer(group, shared)
        elif len(group) == 1 or isinstance(shared, ConflictError | UnavailableError):
            _answer(group, [shared] * len(group))
        else:
            # One of them may be to blame, and the others are not to fail with it.
            _answer(group, [_outcome(partial(self._directory.write, request)) for request in requests])


def _outcome(call: Callable[[], T]) -> T | BaseException:
    try:
        return call()
    except BaseException as error:  # noqa: BLE001  handed to whoever waits, as a pool of threads does
        return error


def _answer(group: list[_Waiting[Any]], outcomes: Sequence[object]) -> None:
    # The loop is woken once for all of them.
    group[0].answer.get_loop().call_soon_threadsafe(_settle, group, outcomes)


def _settle(group: list[_Waiting[Any]], outcomes: Sequence[object]) -> None:
    for waiting, outcome in zip(group, outcomes, strict=True):
        if waiting.answer.done():
            continue  # its caller has gone
        if isinstance(outcome, BaseException):
            waiting.answer.set_exception(outcome)
        else:
            waiting.answer.set_result(outcome)
