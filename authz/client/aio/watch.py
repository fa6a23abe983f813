"""A watch of the change log that resumes by itself when its stream breaks."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import grpc

from authz.client.aio.transport import GuardedStream, sleep
from authz.client.errors import CallError
from authz.client.watch import WatchedChange, watched_of
from authz.domain.errors import ErrorReason
from authz.v1 import watch_pb2

_RESUMED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED)
_FULL = (ErrorReason.OVERLOADED, ErrorReason.LIMIT_EXCEEDED)
_INITIAL_BACKOFF_S = 0.05
_MAX_BACKOFF_S = 1.0
_MAX_SILENCE_S = 15.0
"""The server sends a checkpoint each second. A connection does not notice a machine that disappears without
closing it, and gRPC has been seen to lose a stream whose connection broke while the stream was opened."""


class ResumingWatch:
    """One watch over as many streams as needed. Yields each mutation once."""

    def __init__(
        self,
        open_stream: Callable[[watch_pb2.WatchRequest], Any],
        request: watch_pb2.WatchRequest,
        *,
        resume_for_s: float,
        on_checkpoint: Callable[[watch_pb2.Checkpoint], None],
    ) -> None:
        self._open_stream = open_stream
        self._request = request
        self._resume_for_s = resume_for_s
        self._on_checkpoint = on_checkpoint
        self._was_connected = False
        self._lost_at: float | None = None
        self._backoff_s = _INITIAL_BACKOFF_S
        self._part_given = 0
        """How many mutations were yielded of a change whose last part has not arrived yet."""
        self._part_token = ""

    async def changes(self) -> AsyncGenerator[WatchedChange, None]:
        """See `Client.watch`."""
        while True:
            retry_after_s = 0.0
            try:
                async with aclosing(self._stream()) as changes:
                    async for change in changes:
                        yield change
            except CallError as error:
                self._require_resumable(error)
                retry_after_s = error.retry_after_s
            await sleep(max(self._backoff_s, retry_after_s))
            self._backoff_s = min(2 * self._backoff_s, _MAX_BACKOFF_S)

    async def _stream(self) -> AsyncGenerator[WatchedChange, None]:
        stream = GuardedStream(self._open_stream(self._request), _MAX_SILENCE_S)
        to_skip = self._part_given
        try:
            async for message in stream.messages():
                self._was_connected, self._lost_at, self._backoff_s = True, None, _INITIAL_BACKOFF_S
                if message.HasField("checkpoint"):
                    self._request.after.token = message.checkpoint.read_up_to.token
                    self._on_checkpoint(message.checkpoint)
                    continue
                change = message.change
                self._require_same(change)
                fresh = change.mutations[to_skip:]
                to_skip = 0 if change.last else max(0, to_skip - len(change.mutations))
                # Counted before it is yielded: a caller that stops reading here has received it.
                self._part_given = 0 if change.last else self._part_given + len(fresh)
                if change.last:
                    self._request.after.token = change.written_at.token
                if fresh:
                    yield watched_of(change, fresh)
        finally:
            await stream.close()

    def _require_same(self, change: watch_pb2.WatchChange) -> None:
        """Raise if a change of which a part was yielded no longer exists, for example after a restore."""
        token = change.written_at.token
        if self._part_given and token != self._part_token:
            raise CallError(
                grpc.StatusCode.OUT_OF_RANGE,
                ErrorReason.TOKEN_EXPIRED,
                "the database has left the history of a change that was received in part; read the directory"
                " again and watch from the state that was read",
            )
        self._part_token = token

    def _require_resumable(self, error: CallError) -> None:
        """Raise the error unless the watch worked until recently and a retry may succeed."""
        now = time.monotonic()
        self._lost_at = now if self._lost_at is None else self._lost_at
        # The previous stream may still count against the server's limits on watches.
        may_pass = error.code in _RESUMED or error.reason in _FULL
        if not (self._was_connected and may_pass and now - self._lost_at <= self._resume_for_s):
            raise error
