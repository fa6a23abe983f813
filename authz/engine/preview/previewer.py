"""Previews policies alongside checks: in slices of the event loop, each on one snapshot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from authz.domain.consistency import Consistency
from authz.domain.decision_log import DecisionEntry, DecisionTable
from authz.domain.ids import PLATFORM, Scope
from authz.domain.impact import PreviewProgress, PreviewTotals
from authz.domain.policy_changes import PolicySource
from authz.engine.check import Checker
from authz.engine.clock import DecisionClock
from authz.engine.compare import Comparer
from authz.engine.consistency import ConsistencyGate
from authz.engine.policies import ActiveChecker
from authz.engine.preview.computation import Preview, PreviewEvent
from authz.engine.preview.recent import changed_answers, read_recent, recent_decisions
from authz.engine.streams import write_within
from authz.engine.turns import Turns
from authz.policy.diff import diff

_ROWS_A_PART = 50


class Previewer:
    """Every preview of a server."""

    def __init__(
        self,
        comparer: Comparer,
        active: ActiveChecker,
        turns: Turns,
        clock: DecisionClock,
        *,
        decisions: DecisionTable,
        gate: ConsistencyGate,
        write_timeout_s: float,
    ) -> None:
        self._decisions = decisions
        self._gate = gate
        self._comparer = comparer
        self._active = active
        self._turns = turns
        self._clock = clock
        self._write_timeout_s = write_timeout_s

    async def preview(
        self,
        source: PolicySource,
        scope: Scope,
        consistency: Consistency,
        deadline: float | None,
        *,
        max_examples: int,
        max_largest: int,
        write: Callable[[list[PreviewEvent]], Awaitable[None]],
    ) -> None:
        """Write what another policy of the platform or of a course would change, in parts; the totals are the
        last event.

        Raises as `Comparer.compiled`, `ActiveChecker.get` and `write_within`.
        """
        in_course, entries = None, list[DecisionEntry]()
        if scope == PLATFORM:
            entries = await self._gate.read(partial(read_recent, self._decisions))
            after = Checker(await self._comparer.compiled(source))
            snapshot, before = await self._active.get(consistency, deadline)
        else:
            snapshot, before = await self._active.get(consistency, deadline)
            after = before
            in_course = scope.id, await self._comparer.in_course(before.policy, source, scope)
        now = self._clock.at(snapshot.state.committed_at)
        changes = await self._turns.collect(changed_answers(snapshot, before, after, now, entries))
        preview = Preview(
            snapshot,
            before,
            after,
            now,
            max_examples=max_examples,
            max_largest=max_largest,
            recent=recent_decisions(entries, changes),
            in_course=in_course,
        )
        differ = partial(diff, before.policy, after.policy)
        nothing = in_course is None and not await self._gate.compute(differ)
        await self._write(iter((preview.totals(),)) if nothing else preview.events(), write)

    async def _write(
        self,
        events: Iterable[PreviewEvent | None],
        write: Callable[[list[PreviewEvent]], Awaitable[None]],
    ) -> None:
        part: list[PreviewEvent] = []
        async for some in self._turns.parts(events):
            for event in some:
                if event is None:
                    continue
                part.append(event)
                if isinstance(event, PreviewProgress | PreviewTotals) or len(part) >= _ROWS_A_PART:
                    await write_within(self._write_timeout_s, write(part), what="preview")
                    part = []
