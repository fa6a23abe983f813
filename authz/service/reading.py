"""Runs a computation over a snapshot that is as fresh as the caller asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc

from authz.domain.errors import ErrorReason, InvalidArgumentError, UnavailableError
from authz.domain.ports import Directory, Snapshot, View
from authz.domain.tokens import ConsistencyToken, decode_consistency_token, encode_consistency_token
from authz.v1 import common_pb2

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]

_FIRST_POLL_S = 0.001
_LAST_POLL_S = 0.016
_ANSWER_MARGIN_S = 0.1
"""Kept of a deadline, so that the caller gets our answer instead of its own DEADLINE_EXCEEDED."""
_SETTLE_S = 0.5
"""How long the answer to a write waits for the replica: far longer than it takes when all is well."""


class Reading:
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
        self._last_token = (-1, "", "")

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
        least = 0
        requirement = consistency.WhichOneof("requirement")
        if requirement == "at_least_as_fresh":
            least = self.revision_of(consistency.at_least_as_fresh, field="consistency.at_least_as_fresh")
        elif requirement == "fully_consistent":
            least = (await self.run(self._directory.head)).revision
        if (snapshot := self._view.snapshot()).revision >= least:
            return compute(snapshot)
        del snapshot  # its pages are not to be kept while this waits
        if not await self._wait_for(least, self._patience_s(context)):
            raise UnavailableError(
                ErrorReason.NOT_FRESH_ENOUGH,
                "the state that was asked for has not arrived within the deadline; try again",
            )
        return compute(self._view.snapshot())

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function that blocks, in the pool."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    def token(self, revision: int) -> str:
        """The encoded token of a revision of this database."""
        database_id = self._view.database_id()
        known_revision, known_database, token = self._last_token
        if known_revision != revision or known_database != database_id:
            token = encode_consistency_token(ConsistencyToken(database_id, revision))
            self._last_token = (revision, database_id, token)
        return token

    async def settle(self, revision: int) -> None:
        """Wait until this machine's replica holds a write, so that whoever was told of it sees it here.

        Gives up after a while: the write is done, however the replica fares.
        """
        await self._wait_for(revision, _SETTLE_S)

    async def wait_beyond(self, revision: int, timeout_s: float) -> bool:
        """Return whether, within the time, there is a revision greater than this one."""
        return await self._wait_for(revision + 1, timeout_s)

    def revision_of(self, message: common_pb2.ConsistencyToken, *, field: str) -> int:
        """The revision of a token; raises `InvalidArgumentError` (MALFORMED_TOKEN) if it is not of ours."""
        token = decode_consistency_token(message.token, field=field)
        if token.database_id != self._view.database_id():
            raise InvalidArgumentError(
                ErrorReason.MALFORMED_TOKEN,
                f"{field} is a token of another database; use one that this service gave",
                field=field,
            )
        return token.revision

    async def wait_until(self, consistency: common_pb2.Consistency, context: Context) -> None:
        """Return once the database can be asked for a state as fresh as asked.

        It knows every write that it gave a token for; one of the future it may never know.
        """
        if consistency.WhichOneof("requirement") == "at_least_as_fresh":
            await self.read(consistency, context, lambda snapshot: snapshot.revision)

    async def _wait_for(self, revision: int, patience_s: float) -> bool:
        give_up_at = time.monotonic() + patience_s
        pause_s = _FIRST_POLL_S
        while not self._holds(revision):
            left_s = give_up_at - time.monotonic()
            if left_s <= 0:
                return False
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LAST_POLL_S)
        return True

    def _holds(self, revision: int) -> bool:
        try:
            return self._view.revision() >= revision
        except UnavailableError:
            return False

    def _patience_s(self, context: Context) -> float:
        remaining_s = context.time_remaining()
        wait_s = self._freshness_wait_s if remaining_s is None else remaining_s
        return wait_s - min(_ANSWER_MARGIN_S + _LAST_POLL_S, wait_s / 2)
