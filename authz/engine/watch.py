"""Reads the change log for each watch and decides what the watch sends, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, NoReturn, Protocol, TypeVar

import structlog

from authz.domain.change_filter import ChangeFilter
from authz.domain.entities import Erasure, ErasureStatus
from authz.domain.errors import AuthzError, ErrorReason, OutOfRangeError, SlowConsumerError, UnavailableError
from authz.domain.instants import Instant
from authz.domain.mutations import Change, ChangePart, LogChunk, Mutation
from authz.domain.tokens import ConsistencyToken
from authz.engine.clock import DecisionClock
from authz.engine.consistency import ConsistencyGate
from authz.engine.streams import completes_within
from authz.engine.turns import Turns
from authz.store.directory import SqlDirectory
from authz.store.privacy.recipients import Recipients

log = structlog.get_logger()

_MAX_WAIT_S = 1.0
"""How long a watch waits for other reads, of which a costly one may take seconds."""
MUTATIONS_A_READ = 500
"""Bounds what a watch holds in memory, whatever the size of a revision."""

M = TypeVar("M")


class WatchMessages(Protocol[M]):
    """The messages of one face."""

    def checkpoint(self, token: str, *, caught_up: bool, now: Instant) -> M:
        """Says that everything up to the token has been sent, whether that includes all that was committed
        when the previous checkpoint was sent, and what time it is for decisions."""

    def changes(self, change: Change, mutations: Iterable[Mutation], token: str) -> Iterator[M | None]:
        """Mutations of a change in order, in messages of bounded size, none of them empty.

        Yields None for each mutation that completes no message, so that the work can be interrupted."""

    def mark_last(self, message: M) -> None:
        """Make a message of `changes` say that the change ends with it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Watches(Generic[M]):
    """Every watch of a server. Each reads the log for itself, from its own position, in chunks of bounded
    size."""

    directory: SqlDirectory
    gate: ConsistencyGate
    clock: DecisionClock
    messages: WatchMessages[M]
    turns: Turns
    recipients: Recipients
    write_timeout_s: float
    max_watch_s: float
    _stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def stop(self) -> None:
        """End every watch, and each that comes later, with `UnavailableError`."""
        self._stopping.set()

    async def watch(
        self,
        wanted: ChangeFilter,
        *,
        caller: str,
        after: str | None,
        checkpoint_interval_s: float,
        write: Callable[[M], Awaitable[None]],
    ) -> NoReturn:
        """Write what follows the encoded token `after`, or now, until the watch fails or is cancelled. By the
        token, the caller acknowledges everything before it.

        Raises `OutOfRangeError` as `SqlDirectory.read_log`, `SlowConsumerError` when a write takes longer
        than the timeout, and `UnavailableError`.
        """
        if after is not None:
            position = await self.gate.state_of(after, field="after")
        else:
            position = await self.gate.run(self.directory.head)
        watch = _Watch(self, position, write, caller)
        acknowledged = 0 if after is None else position.revision
        running = asyncio.ensure_future(watch.run(wanted, checkpoint_interval_s, acknowledged))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait(
                {running, stopping}, timeout=self.max_watch_s, return_when=asyncio.FIRST_COMPLETED
            )
            if running.done():
                running.result()
            reason, cause = ErrorReason.WATCH_TIME_OVER, "a watch does not last forever"
            if stopping.done():
                reason, cause = ErrorReason.SERVER_STOPPING, "the server is stopping"
            raise UnavailableError(reason, f"{cause}; watch again from your last token")
        finally:
            running.cancel()
            stopping.cancel()
            await asyncio.gather(running, stopping, return_exceptions=True)

    async def record(self, caller: str, *, sent: int = 0, acknowledged: int = 0) -> None:
        """As `Recipients.record`. A failure is logged, and the watch continues; certificates then report too
        little."""
        try:
            await self.gate.run(self.recipients.record, caller, sent=sent, acknowledged=acknowledged)
        except AuthzError as error:
            log.warning("watcher not recorded", caller=caller, cause=error.message)

    async def read(self, after: ConsistencyToken, skip: int) -> LogChunk:
        """As `SqlDirectory.read_log`, without blocking."""
        read = self.directory.read_log
        return await self.gate.read(read, after, skip, MUTATIONS_A_READ, max_wait_s=_MAX_WAIT_S)


@dataclass(eq=False)
class _Watch(Generic[M]):
    """One watch. Everything up to `position` has been handed over to be sent."""

    watches: Watches[M]
    position: ConsistencyToken
    write: Callable[[M], Awaitable[None]]
    caller: str
    skip: int = 0
    """How many mutations of the revision after `position` have been read."""
    begun: ConsistencyToken | None = None
    """The state of that revision, while only a part of it has been read."""
    held: M | None = None
    """The last message of that revision so far. Only the next message shows that it does not end it."""

    async def run(self, wanted: ChangeFilter, interval_s: float, acknowledged: int) -> NoReturn:
        """Send what follows and is wanted; a checkpoint first, then one in each interval. Record what was
        acknowledged, if the token has not expired."""
        clock = asyncio.get_running_loop().time
        # Read before the first checkpoint: a token that has expired gets an error and nothing else.
        chunk = await self.watches.read(self.position, 0)
        await self.watches.record(self.caller, acknowledged=acknowledged)
        checkpoint_at, head = clock(), None
        while True:
            # Within a revision, too: a large one of which little is wanted would otherwise pass in silence.
            if clock() >= checkpoint_at:
                token = self.watches.gate.token_of(self.position)
                caught_up = head is not None and self.position.revision >= head
                now = self.watches.clock.at(self.position.committed_at)
                await self._send(self.watches.messages.checkpoint(token, caught_up=caught_up, now=now))
                checkpoint_at, head = clock() + interval_s, chunk.head
            for part in chunk.parts:
                await self._send_part(part, wanted.select(part))
            if self.skip == 0 and self.position.revision >= chunk.head:
                timeout_s = max(0.0, checkpoint_at - clock())
                await self.watches.gate.wait_beyond(self.position.revision, timeout_s)
            # After a timeout, too: the log may have been cut, or the database restored.
            chunk = await self.watches.read(self.position, self.skip)

    async def _send_part(self, part: ChangePart, mutations: tuple[Mutation, ...]) -> None:
        change = part.change
        state = change.state(self.position.database_id)
        if self.skip and state != self.begun:
            raise OutOfRangeError(
                "the database has left the history of a change of which a part was sent, as after a restore;"
                " read the directory again and watch from the state that was read",
                field="after",
            )
        self.begun = state
        token = self.watches.gate.token_of(state)
        rendered = self.watches.messages.changes(change, mutations, token)
        for message in await self.watches.turns.collect(rendered):
            if message is None:
                continue
            if self.held is not None:
                await self._send(self.held)
            self.held = message
        if not part.is_last:
            self.skip += len(change.mutations)
            return
        final, self.held = self.held, None
        self.position, self.skip = state, 0
        if final is not None:
            self.watches.messages.mark_last(final)
            await self._send(final)
        if any(_says_erased(each) for each in mutations):
            await self.watches.record(self.caller, sent=state.revision)

    async def _send(self, message: M) -> None:
        if not await completes_within(self.watches.write_timeout_s, self.write(message)):
            # A message that was handed over still reaches the client, before the status: so it counts.
            raise SlowConsumerError(
                "the client has not read for too long; watch again from `resume_after`",
                resume_after=self.watches.gate.token_of(self.position),
            )


def _says_erased(mutation: Mutation) -> bool:
    target = mutation.target
    return isinstance(target, Erasure) and target.status is ErasureStatus.ERASED
