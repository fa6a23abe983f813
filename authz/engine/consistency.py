"""Gives each call a snapshot as fresh as it demands."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar, TypeVarTuple

import structlog

from authz.domain.consistency import Consistency, Freshness
from authz.domain.errors import ErrorReason, UnavailableError, invalid
from authz.domain.ports import Snapshot, View
from authz.domain.tokens import ConsistencyToken, TokenKeys, malformed_token
from authz.engine.shared_query import SharedQuery
from authz.engine.view_changes import MAX_BACKOFF_S, ViewChanges
from authz.store.directory import SqlDirectory

log = structlog.get_logger()

T = TypeVar("T")
P = ParamSpec("P")
Ts = TypeVarTuple("Ts")

_HEAD_INTERVAL_S = 0.1
_ANSWERED_S = 0.25
"""For how long a database that has answered is not asked whether it does."""
_MAX_COMPUTING_S = 120.0
"""Twice what the proof and the tests of the largest policies take."""
_FIELD = "consistency.at_least_as_fresh"
_ANSWER_MARGIN_S = 0.1
"""Kept of a deadline for the answer, so that the caller gets it instead of its own DEADLINE_EXCEEDED."""


class ConsistencyGate:
    """The read side of every call.

    Decisions are computed on the event loop, from memory, in microseconds; calls of the database run in
    a bounded pool of threads, and what may compute for seconds in another. Deadlines are on the clock of
    `time.monotonic`, in seconds; a call waits for at most `freshness_timeout_s`, however late its deadline
    is. A write waits for the replica for at most `replication_timeout_s`.
    """

    def __init__(
        self,
        view: View,
        directory: SqlDirectory,
        *,
        keys: TokenKeys,
        pool: ThreadPoolExecutor,
        computing_pool: ThreadPoolExecutor,
        freshness_timeout_s: float,
        replication_timeout_s: float,
        max_computing_s: float = _MAX_COMPUTING_S,
    ) -> None:
        self._view = view
        self._changes = ViewChanges(view)
        self._directory = directory
        self._keys = keys
        self._pool = pool
        self._computing_pool = computing_pool
        self._freshness_timeout_s = freshness_timeout_s
        self._replication_timeout_s = replication_timeout_s
        self._max_computing_s = max_computing_s
        self._turn = asyncio.Lock()
        self._head = SharedQuery(lambda: self.run(self._directory.head))
        self._history = SharedQuery(self._compare_history)

    async def snapshot(self, consistency: Consistency, deadline: float | None) -> Snapshot:
        """A snapshot as fresh as demanded. Do not hold it while you wait; see `View.snapshot`.

        Waits, within the deadline, for AT_LEAST_AS_FRESH until the replica holds the state, and for
        FULLY_CONSISTENT until it holds what was committed when this was called. Raises
        `UnavailableError` when the replica does not hold it in time (NOT_FRESH_ENOUGH), or the database does
        not answer in time (STORE_UNAVAILABLE), and `InvalidArgumentError` (MALFORMED_TOKEN) for a token that
        is not one of this database.
        """
        if consistency.freshness is Freshness.MINIMIZE_LATENCY:
            return self._view.snapshot()
        wait_until = self._last_moment(deadline)
        if consistency.freshness is Freshness.FULLY_CONSISTENT:
            reached = await self._wait_for_head(wait_until)
        else:
            least = self._opened(consistency.token, self._view.database_id(), field=_FIELD)
            if not self._view.is_behind():
                self._view.snapshot()  # raises at once when the replica is too stale to be worth a wait
            reached = await self._wait_for(least, wait_until)
        if not reached:
            raise _not_fresh_enough()
        return self._view.snapshot()

    async def wait_until(self, consistency: Consistency, deadline: float | None) -> None:
        """Return once the database holds a state as fresh as demanded, whatever the replica holds.

        A database that was restored may have lost the state of a token. Raises as `snapshot`, and
        `UnavailableError` if the database does not answer.
        """
        if consistency.freshness is not Freshness.AT_LEAST_AS_FRESH:
            return
        wait_until = self._last_moment(deadline)
        head = await self._head.answer()
        least = self._opened(consistency.token, head.database_id, field=_FIELD)
        while not head.includes(least):
            if time.monotonic() + _HEAD_INTERVAL_S > wait_until:
                raise _not_fresh_enough()
            await asyncio.sleep(_HEAD_INTERVAL_S)
            head = await self._head.answer()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that blocks, in the pool."""
        call = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    async def compute(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call a function that may compute for seconds, such as the proof of a policy.

        It has a thread of its own, so that no number of such calls delays what reads the database.
        """
        return await asyncio.get_running_loop().run_in_executor(self._computing_pool, function, *args)

    async def compute_cancellable(self, function: Callable[[*Ts, Callable[[], None]], T], *args: *Ts) -> T:
        """As `compute`, for a function that may take long, and ends when the call is cancelled.

        Cancelling ends no thread. So the function gets a last argument, which it calls at each step: it
        raises `CancelledError` once the call is cancelled, and `InvalidArgumentError` once it has
        computed for `max_computing_s`, whatever the deadline of the call.
        """
        is_cancelled, end_at = threading.Event(), 0.0

        def require_not_cancelled() -> None:
            nonlocal end_at
            if is_cancelled.is_set():
                raise CancelledError
            end_at = end_at or time.monotonic() + self._max_computing_s
            if time.monotonic() > end_at:
                raise invalid(
                    "request",
                    f"what is asked for takes more than {self._max_computing_s:g} s to compute; send fewer"
                    " edits at once, or a policy with fewer rules",
                )

        try:
            return await self.compute(function, *args, require_not_cancelled)
        finally:
            is_cancelled.set()

    async def read(self, function: Callable[[*Ts], T], *args: *Ts, max_wait_s: float | None = None) -> T:
        """As `run`, for what reads many rows: one call at a time, in their order.

        Decoding rows holds the GIL: several threads that do so leave little of it to the event loop. A call
        waits for its turn for at most `max_wait_s`, then reads at the same time as another.
        """
        try:
            async with asyncio.timeout(max_wait_s):
                await self._turn.acquire()
        except TimeoutError:
            return await self.run(function, *args)
        return await self.run_in_turn(self._turn, function, *args)

    async def run_in_turn(self, turn: asyncio.Lock, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """As `run`, with a lock that the caller has acquired, which is released once the function has ended.

        Cancelling a call ends no thread. If the lock were released with the call, a client that cancels and
        calls again would fill the pool.
        """
        release = partial(asyncio.get_running_loop().call_soon_threadsafe, turn.release)
        running = self._pool.submit(function, *args)
        running.add_done_callback(lambda _: release())
        return await asyncio.wrap_future(running)

    async def wait_until_replicated(self, state: ConsistencyToken) -> bool:
        """Wait until every process of this machine answers from a write, or from a later state.

        Returns False after the bound. The write is done all the same, and until the replica holds it every
        process of this machine refuses to answer: none answers from before what was acknowledged.

        Raises `UnavailableError` if the database does not answer then: no replica can follow, so the write
        is not acknowledged, and checks go on. Who repeats it learns whether it is done.
        """
        wait_until = time.monotonic() + self._replication_timeout_s
        try:
            if await self._wait(partial(self._is_announced, state), wait_until):
                return True
            log.warning("replica behind", revision=state.revision, waited_s=self._replication_timeout_s)
        except Exception:
            # The caller must not hear that what is committed has failed.
            log.exception("replica not readable", revision=state.revision)
        await self._head.answer()
        self._view.require(state)
        self._view.release_stale_snapshot()
        return False

    async def wait_beyond(self, revision: int, timeout_s: float) -> bool:
        """Return whether, within the timeout, the replica holds a revision greater than this one."""
        return await self._wait(lambda: self._view.revision() > revision, time.monotonic() + timeout_s)

    async def require_answer(self) -> None:
        """Raise `UnavailableError` (STORE_UNAVAILABLE) if the database does not answer within the freshness
        timeout, or at once while it hangs. One that has just answered is not asked again: a publication of a
        policy reads in several steps."""
        if not self._head.answered_within(_ANSWERED_S):
            await self._head.answer(self._last_moment(None))

    async def is_committed(self, state: ConsistencyToken) -> bool:
        """Whether the database holds a state that it had, or a later one.

        Raises `UnavailableError` if it does not answer."""
        return (await self._head.answer()).includes(state)

    async def state_of(self, token: str, *, field: str) -> ConsistencyToken:
        """The state of an encoded token. Raises `InvalidArgumentError` (MALFORMED_TOKEN) if the token is
        not one of this database, and `UnavailableError` if the database does not answer."""
        return self._opened(token, (await self._head.answer()).database_id, field=field)

    def _opened(self, token: str, database_id: str, *, field: str) -> ConsistencyToken:
        state = self._keys.verify(token, field=field)
        if state.database_id != database_id:
            raise malformed_token(field)
        return state

    def token_of(self, state: ConsistencyToken) -> str:
        """A state of the directory or the view, encoded for clients."""
        return self._keys.sign(state)

    async def _wait_for(self, least: ConsistencyToken, wait_until: float) -> bool:
        """Return whether, in time, the replica holds a state, or a later one of the same history."""
        return await self._wait(lambda: self._view.snapshot().state.includes(least), wait_until)

    async def _wait_for_head(self, wait_until: float) -> bool:
        """Return whether, in time, the replica holds what the database held when this was called.

        A replica may be ahead of that because more was committed since, or because it holds a history that
        the database has left: only the database can tell which.
        """
        head = await self._head.answer(wait_until)
        if not await self._wait_for(head, wait_until):
            return False
        while self._view.snapshot().state != head:
            held, is_known = await self._history.answer()
            if is_known and held.includes(head):
                return True
            # A state of another history, which the follower is about to find, too.
            if not (is_known or await self._wait(partial(self._has_left, held), wait_until)):
                return False
            if not await self._wait_for(head, wait_until):
                return False
        return True

    async def _compare_history(self) -> tuple[ConsistencyToken, bool]:
        """The state that the replica holds, and whether it is one of the database's history."""
        held = self._view.snapshot().state
        tail = await self.run(partial(self._directory.follow, held.revision, 0))
        return held, tail.after == held

    def _is_announced(self, state: ConsistencyToken) -> bool:
        """Whether every process of the machine knows that it must answer from a state. That this process
        sees the state is not enough: the caller may ask another one next."""
        return self._view.revision() >= state.revision and self._view.snapshot().state.includes(state)

    def _has_left(self, state: ConsistencyToken) -> bool:
        return self._view.snapshot().state != state

    async def _wait(self, holds: Callable[[], bool], wait_until: float) -> bool:
        """Return whether a condition holds in time. While the view is unavailable, it does not hold."""
        while True:
            seen = self._changes.look()  # first: a change between the two looks is not missed
            if _is_true(holds):
                return True
            left_s = wait_until - time.monotonic()
            if left_s <= 0:
                return False
            await self._changes.wait(seen, left_s)

    def _last_moment(self, deadline: float | None) -> float:
        """Until when a call may wait, on the clock of `time.monotonic`."""
        now = time.monotonic()
        wait_s = self._freshness_timeout_s
        if deadline is not None:
            wait_s = min(wait_s, deadline - now)
        return now + wait_s - min(_ANSWER_MARGIN_S + MAX_BACKOFF_S, wait_s / 2)


def _not_fresh_enough() -> UnavailableError:
    return UnavailableError(
        ErrorReason.NOT_FRESH_ENOUGH,
        "the state that was asked for has not arrived within the deadline; try again",
    )


def _is_true(holds: Callable[[], bool]) -> bool:
    try:
        return holds()
    except UnavailableError:
        return False
