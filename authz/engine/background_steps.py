"""Continues work in the background: large deletions, erasures, purges."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from authz.domain.tokens import ConsistencyToken
from authz.engine.consistency import ConsistencyGate
from authz.engine.group_commit import GroupCommitter
from authz.engine.polling import poll

_INTERVAL_S = 1.0
"""How often a process polls for remaining work that no other process continues."""
_WAIT_S = 0.1
"""After a step that had to wait for something."""


@dataclass(eq=False)
class BackgroundSteps:
    """Takes bounded steps, in turn with the writes, until nothing is left.

    `progress` gives another value after each step, and None if nothing is left; `advance_once` takes one, and
    is given what `prepare` returns, if there is that: no write waits for `prepare`.

    Every serving process has one. It goes on only with what nobody has advanced since it looked last, or for
    `patience` looks: so one process of all takes the steps, and when that one stops, another continues. The
    pauses between the steps leave the write lock to other processes for half of the time.
    """

    name: str
    progress: Callable[[], object | None]
    advance_once: Callable[..., ConsistencyToken]
    gate: ConsistencyGate
    committer: GroupCommitter
    interval_s: float = field(default=_INTERVAL_S, kw_only=True)
    prepare: Callable[[], object] | None = field(default=None, kw_only=True)
    patience: int = field(default=1, kw_only=True)
    """How often in a row a process sees that nothing has advanced before it goes on with the work of another:
    more often for what is prepared, which others would prepare, too."""
    _seen: object | None = field(default=None, init=False)
    _unchanged: int = field(default=0, init=False)

    async def run(self) -> None:
        """Take steps until cancelled, through every failure."""
        await poll(self._advance_abandoned, interval_s=self.interval_s, work=self.name)

    async def advance(self) -> float | None:
        """Take one step for a caller, and wait for the replica as after a write. Return how many seconds to
        pause before the next step, as long as this one took; None if there is none, or the replica has not
        followed.

        So a revocation never waits for more than one step, neither at the database nor at the replica.
        """
        return await self._advance(self.gate.wait_until_replicated)

    async def _advance_abandoned(self) -> None:
        """Take all steps that are left, if this process has taken the last one, or nobody has for long."""
        progress = await self.gate.run(self.progress)
        self._unchanged = self._unchanged + 1 if progress == self._seen else 0
        while progress is not None and progress == self._seen and self._unchanged >= self.patience:
            pause_s = await self._advance(self._follow)
            await asyncio.sleep(pause_s or 0)
            progress = await self.gate.run(self.progress)
        self._seen = progress

    async def _advance(self, follow: Callable[[ConsistencyToken], Awaitable[bool]]) -> float | None:
        """As `advance`; `follow` waits until the replica holds a state, or returns False."""
        advance = self.advance_once
        if self.prepare is not None:
            advance = partial(advance, await self.gate.run(self.prepare))
        started_s, before = time.monotonic(), self._seen
        state = await self.committer.run_batch(advance)
        self._seen, self._unchanged = await self.gate.run(self.progress), self.patience
        elapsed_s = time.monotonic() - started_s
        if not await follow(state) or self._seen is None:
            return None
        return elapsed_s if self._seen != before else max(elapsed_s, _WAIT_S)

    async def _follow(self, state: ConsistencyToken) -> bool:
        """Wait for as long as it takes: nobody waits for a step of the background. Returns False if the
        database has lost the step, as after a restore or a failover."""
        while not await self.gate.wait_beyond(state.revision - 1, _INTERVAL_S):
            if not await self.gate.is_committed(state):
                return False
        return True
