"""Runs a computation over a snapshot that is as fresh as the caller asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import grpc

from authz.domain.errors import ErrorReason, InvalidArgumentError, UnavailableError
from authz.domain.ports import Snapshot, View
from authz.domain.tokens import ConsistencyToken, decode_consistency_token, encode_consistency_token
from authz.v1 import common_pb2

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]

_POLL_S = 0.02
_ANSWER_MARGIN_S = 0.1
"""Kept of a deadline, so that the caller gets our answer instead of its own DEADLINE_EXCEEDED."""


class Reading:
    """The read side of every servicer. Off the event loop, in a bounded pool of threads."""

    def __init__(
        self, view: View, *, database_id: str, pool: ThreadPoolExecutor, freshness_wait_s: float
    ) -> None:
        self._view = view
        self._database_id = database_id
        self._pool = pool
        self._freshness_wait_s = freshness_wait_s

    async def read(
        self, consistency: common_pb2.Consistency, context: Context, compute: Callable[[Snapshot], T]
    ) -> T:
        """`compute` over one snapshot.

        Waits for `at_least_as_fresh` within the deadline of the call, else raises
        `UnavailableError` (NOT_FRESH_ENOUGH). Every snapshot of the source of truth is fully
        consistent, so the other two requirements ask nothing more.
        """
        least = self._least_revision(consistency)
        remaining_s = context.time_remaining()
        wait_s = self._freshness_wait_s if remaining_s is None else remaining_s
        give_up_at = time.monotonic() + wait_s - min(_ANSWER_MARGIN_S + _POLL_S, wait_s / 2)
        while True:
            outcome = await self.run(partial(self._compute, least, compute))
            if outcome is not None:
                return outcome[0]
            if time.monotonic() >= give_up_at:
                raise UnavailableError(
                    ErrorReason.NOT_FRESH_ENOUGH,
                    "the state that the token asks for has not arrived within the deadline; try again",
                )
            await asyncio.sleep(_POLL_S)

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function that blocks, in the pool."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    def token(self, revision: int) -> str:
        """The encoded token of a revision of this database."""
        return encode_consistency_token(ConsistencyToken(self._database_id, revision))

    def revision_of(self, message: common_pb2.ConsistencyToken, *, field: str) -> int:
        """The revision of a token; raises `InvalidArgumentError` (MALFORMED_TOKEN) if it is not of ours."""
        token = decode_consistency_token(message.token, field=field)
        if token.database_id != self._database_id:
            raise InvalidArgumentError(
                ErrorReason.MALFORMED_TOKEN,
                f"{field} is a token of another database; use one that this service gave",
                field=field,
            )
        return token.revision

    async def wait_until(self, consistency: common_pb2.Consistency, context: Context) -> None:
        """Return once a snapshot is as fresh as asked."""
        if consistency.WhichOneof("requirement") == "at_least_as_fresh":
            await self.read(consistency, context, lambda snapshot: snapshot.revision)

    def _compute(self, least: int, compute: Callable[[Snapshot], T]) -> tuple[T] | None:
        with self._view.snapshot() as snapshot:
            return None if snapshot.revision < least else (compute(snapshot),)

    def _least_revision(self, consistency: common_pb2.Consistency) -> int:
        if consistency.WhichOneof("requirement") != "at_least_as_fresh":
            return 0
        return self.revision_of(consistency.at_least_as_fresh, field="consistency.at_least_as_fresh")
