"""Runs a computation over a snapshot that is as fresh as the caller asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import grpc
import structlog

from authz.domain.errors import ErrorReason, InvalidArgumentError, UnavailableError
from authz.domain.ports import Directory, Snapshot, View
from authz.domain.tokens import ConsistencyToken, decode_consistency_token
from authz.v1 import common_pb2

log = structlog.get_logger()

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]

_INITIAL_POLL_S = 0.001
_MAX_POLL_S = 0.016
_ANSWER_MARGIN_S = 0.1
"""Kept of a deadline, so that the caller gets our answer instead of its own DEADLINE_EXCEEDED."""
_REPLICATION_TIMEOUT_S = 0.5
"""How long the answer to a write waits for the replica: far longer than it takes when all is well."""


class ConsistencyGate:
    """The read side of every servicer.

    Decisions are computed on the event loop, from memory, in microseconds; whatever asks the database
    goes to a bounded pool of threads.
    """

    def __init__(
        self, view: View, directory: Directory, *, pool: ThreadPoolExecutor, freshness_wait_s: float
    ) -> None:
        self._view = view
        self._directory = directory
        self._pool = pool
        self._freshness_wait_s = freshness_wait_s

    def snapshot(self) -> Snapshot:
        """The state at hand, for who need not wait for another. See `View.snapshot`."""
        return self._view.snapshot()

    async def read(
        self, consistency: common_pb2.Consistency, context: Context, compute: Callable[[Snapshot], T]
    ) -> T:
        """`compute` over one snapshot.

        Waits for `at_least_as_fresh`, and for `fully_consistent` until the replica holds what was
        committed when the call came, within the deadline of the call; else raises `UnavailableError`
        (NOT_FRESH_ENOUGH).
        """
        deadline = time.monotonic() + self._timeout_s(context)
        requirement = consistency.WhichOneof("requirement")
        reached = True
        if requirement == "at_least_as_fresh":
            least = self.state_of(consistency.at_least_as_fresh, field="consistency.at_least_as_fresh")
            self._view.snapshot()  # one that is too stale is not waited for
            reached = await self._wait_for(least, deadline)
        elif requirement == "fully_consistent":
            reached = await self._wait_for_head(deadline)
        if not reached:
            raise UnavailableError(
                ErrorReason.NOT_FRESH_ENOUGH,
                "the state that was asked for has not arrived within the deadline; try again",
            )
        return compute(self._view.snapshot())

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function that blocks, in the pool."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    async def wait_until_replicated(self, state: ConsistencyToken) -> None:
        """Wait until this machine's replica holds a write, so that whoever was told of it sees it here.

        Gives up after a while: the write is done, however the replica fares.
        """
        try:
            settled = await self._wait(
                partial(self._is_told, state), time.monotonic() + _REPLICATION_TIMEOUT_S
            )
        except Exception:
            # Its caller must not hear that what is committed has failed.
            log.exception("replica not readable", revision=state.revision)
            return
        if not settled:
            log.warning("replica behind", revision=state.revision, waited_s=_REPLICATION_TIMEOUT_S)
            self._view.release_stale_snapshot()

    async def wait_beyond(self, revision: int, timeout_s: float) -> bool:
        """Return whether, within the time, there is a revision greater than this one."""
        deadline = time.monotonic() + timeout_s
        return await self._wait(lambda: self._view.revision() > revision, deadline)

    def state_of(self, message: common_pb2.ConsistencyToken, *, field: str) -> ConsistencyToken:
        """The state of a token; raises `InvalidArgumentError` (MALFORMED_TOKEN) if it is not of ours."""
        token = decode_consistency_token(message.token, field=field)
        if token.database_id != self._view.database_id():
            raise InvalidArgumentError(
                ErrorReason.MALFORMED_TOKEN,
                f"{field} is a token of another database; use one that this service gave",
                field=field,
            )
        return token

    async def wait_until(self, consistency: common_pb2.Consistency, context: Context) -> None:
        """Return once the database can be asked for a state as fresh as asked.

        It knows every write that it gave a token for; one of the future it may never know.
        """
        if consistency.WhichOneof("requirement") == "at_least_as_fresh":
            await self.read(consistency, context, lambda snapshot: snapshot.revision)

    async def _wait_for(self, least: ConsistencyToken, deadline: float) -> bool:
        """Return whether in time the replica holds a state, or one after it in the same history."""
        return await self._wait(lambda: self._view.snapshot().state.includes(least), deadline)

    async def _wait_for_head(self, deadline: float) -> bool:
        """Return whether in time the replica holds what the database held when this was called.

        A replica that is further on may be so because more was committed since, or in a history that the
        database has left: the database is asked which.
        """
        head = await self.run(self._directory.head)
        if not await self._wait_for(head, deadline):
            return False
        held = self._view.snapshot().state
        while held != head:
            tail = await self.run(partial(self._directory.follow, held.revision, 0))
            if tail.after == held:
                return True
            # It is of another history, which the follower is about to find, too.
            if not await self._wait(partial(self._has_left, held), deadline):
                return False
            if not await self._wait_for(head, deadline):
                return False
            held = self._view.snapshot().state
        return True

    def _is_told(self, state: ConsistencyToken) -> bool:
        """Whether every process of the machine is told to answer from a state: that this one happens to see
        it already is not enough for who may ask another next."""
        return self._view.revision() >= state.revision and self._view.snapshot().state.includes(state)

    def _has_left(self, state: ConsistencyToken) -> bool:
        return self._view.snapshot().state != state

    async def _wait(self, holds: Callable[[], bool], deadline: float) -> bool:
        """Return whether in time something holds. A view that has nothing to say does not hold it."""
        backoff_s = _INITIAL_POLL_S
        while not _known(holds):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            await asyncio.sleep(min(backoff_s, left_s))
            backoff_s = min(2 * backoff_s, _MAX_POLL_S)
        return True

    def _timeout_s(self, context: Context) -> float:
        remaining_s = context.time_remaining()
        wait_s = self._freshness_wait_s if remaining_s is None else remaining_s
        return wait_s - min(_ANSWER_MARGIN_S + _MAX_POLL_S, wait_s / 2)


def _known(holds: Callable[[], bool]) -> bool:
    try:
        return holds()
    except UnavailableError:
        return False
