"""WatchService: sends the change log as it grows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import NoReturn

import grpc

from authz.domain.change_filter import ChangeFilter
from authz.domain.errors import ErrorReason, OutOfRangeError, SlowConsumerError, UnavailableError
from authz.domain.mutations import Change, ChangePart, LogChunk, Mutation
from authz.domain.ports import Directory
from authz.domain.tokens import ConsistencyToken, encode_consistency_token
from authz.engine.consistency import ConsistencyGate, Context
from authz.v1 import watch_pb2 as pb
from authz.v1 import watch_pb2_grpc
from authz.wire.changes import (
    change_filter,
    change_messages,
    checkpoint_interval_s,
    checkpoint_message,
)

MUTATIONS_A_READ = 500
"""Bounds what a watch holds in memory, whatever the size of a revision."""
_MAX_CHANGE_BYTES = 256 * 1024

WaitBeyond = Callable[[int, float], Awaitable[bool]]
"""(revision, timeout_s): True once a greater revision may be readable, False after the timeout."""


class WatchServicer(watch_pb2_grpc.WatchServiceServicer):
    """Each watch reads the log for itself, from its own place, in stretches of bounded size."""

    def __init__(
        self,
        directory: Directory,
        reading: ConsistencyGate,
        wait_beyond: WaitBeyond,
        *,
        write_timeout_s: float,
        max_message_bytes: int,
    ) -> None:
        self._directory = directory
        self._reading = reading
        self._wait_beyond = wait_beyond
        self._write_timeout_s = write_timeout_s
        # Half is left for what a message holds beside its mutations.
        self._max_change_bytes = min(_MAX_CHANGE_BYTES, max_message_bytes // 2)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End every watch with UNAVAILABLE, also those to come."""
        self._stopping.set()

    async def Watch(  # type: ignore[override]  # a coroutine that writes can see a write take too long
        self, request: pb.WatchRequest, context: Context
    ) -> None:
        """From the token, or from now, until the client or the server ends it."""
        wanted, interval_s = change_filter(request), checkpoint_interval_s(request)
        if request.HasField("after"):
            after = self._reading.state_of(request.after, field="after")
        else:
            after = await self._reading.run(self._directory.head)
        watch = _Watch(
            read=self._read,
            wait_beyond=self._wait_beyond,
            write=partial(_write_within, context, self._write_timeout_s),
            messages=partial(change_messages, max_bytes=self._max_change_bytes),
            after=after,
        )
        running = asyncio.ensure_future(watch.run(wanted, interval_s))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            raise UnavailableError(
                ErrorReason.STORE_UNAVAILABLE, "the server is stopping; watch again from your last token"
            )
        finally:
            running.cancel()
            stopping.cancel()
            await asyncio.gather(running, stopping, return_exceptions=True)

    async def _read(self, after: ConsistencyToken, skip: int) -> LogChunk:
        return await self._reading.run(partial(self._directory.read_log, after, skip, MUTATIONS_A_READ))


class _Watch:
    """One watch. Everything up to `_position` has been handed over to be sent."""

    def __init__(
        self,
        *,
        read: Callable[[ConsistencyToken, int], Awaitable[LogChunk]],
        wait_beyond: WaitBeyond,
        write: Callable[[pb.WatchResponse], Awaitable[bool]],
        messages: Callable[[Change, Iterable[Mutation], str], Iterator[pb.WatchResponse]],
        after: ConsistencyToken,
    ) -> None:
        self._read = read
        self._wait_beyond = wait_beyond
        self._write = write
        self._messages = messages
        self._position = after
        self._skip = 0
        """How many mutations of the revision after `_position` have been read."""
        self._begun = after
        """The state of that revision, while it has been read in part."""
        self._held: pb.WatchResponse | None = None
        """The last message of that revision so far: only when the next is made is it known not to end it."""

    async def run(self, wanted: ChangeFilter, interval_s: float) -> NoReturn:
        """Send what is wanted of what follows; a checkpoint first, then one in each interval."""
        clock = asyncio.get_running_loop().time
        # Read before the first checkpoint: a token that has expired gets an error and nothing else.
        stretch = await self._read(self._position, 0)
        checkpoint_at = clock()
        while True:
            # Also within a revision: a large one of which little is wanted would pass in silence.
            if clock() >= checkpoint_at:
                await self._send(checkpoint_message(encode_consistency_token(self._position)))
                checkpoint_at = clock() + interval_s
            for part in stretch.parts:
                await self._send_part(part, wanted.select(part))
            if self._skip == 0 and self._position.revision >= stretch.head:
                await self._wait_beyond(self._position.revision, max(0.0, checkpoint_at - clock()))
            # Also after a wait in vain: the log may have been cut, or the database restored.
            stretch = await self._read(self._position, self._skip)

    async def _send_part(self, part: ChangePart, mutations: tuple[Mutation, ...]) -> None:
        change = part.change
        state = change.state(self._position.database_id)
        if self._skip and state != self._begun:
            raise OutOfRangeError(
                ErrorReason.TOKEN_EXPIRED,
                "the database has left the history of a change of which a part was sent, as after a restore;"
                " read the directory anew and watch from the state that was read",
                field="after",
            )
        self._begun = state
        for message in self._messages(change, mutations, encode_consistency_token(state)):
            if self._held is not None:
                await self._send(self._held)
            self._held = message
        if not part.is_last:
            self._skip += len(change.mutations)
            return
        final, self._held = self._held, None
        self._position, self._skip = state, 0
        if final is not None:
            final.change.last = True
            await self._send(final)

    async def _send(self, message: pb.WatchResponse) -> None:
        if not await self._write(message):
            # What was handed over still reaches the client, and only then the status: so it counts.
            raise SlowConsumerError(
                "the client has not read for too long; watch again from `resume_after`",
                resume_after=encode_consistency_token(self._position),
            )


async def _write_within(context: Context, timeout_s: float, message: pb.WatchResponse) -> bool:
    """Write to the stream; False when there is still no room for it after `timeout_s`."""
    # Left to itself when it takes too long: an operation of the transport cannot be taken back.
    writing = asyncio.ensure_future(context.write(message))
    writing.add_done_callback(_take_outcome)
    done, _ = await asyncio.wait({writing}, timeout=timeout_s)
    if not done:
        return False
    try:
        writing.result()
    except grpc.aio.BaseError:
        # The call is over; grpc tells a writer before it cancels it.
        raise asyncio.CancelledError from None
    return True


def _take_outcome(writing: asyncio.Future[None]) -> None:
    """So that asyncio does not log what nobody waits for any more."""
    if not writing.cancelled():
        writing.exception()
