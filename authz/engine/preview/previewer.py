"""Previews policies alongside checks: in slices of the event loop, each on one snapshot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from authz.domain.consistency import Consistency
from authz.domain.decision_log import DecisionEntry, DecisionTable
from authz.domain.ids import PLATFORM, Scope
from authz.domain.impact import PreviewProgress, PreviewTotals
from authz.domain.policy_changes import PolicySource
from authz.engine.check import Checker
from authz.engine.compare import Comparer
from authz.engine.consistency import ConsistencyGate
from authz.engine.policies import ActiveChecker
from authz.engine.preview.computation import Preview, PreviewEvent
from authz.engine.preview.recent import changed_answers, read_recent, recent_decisions
from authz.engine.streams import write_within
from authz.engine.turns import Turns
from authz.policy.diff import is_same

_ROWS_A_PART = 50


@dataclass(frozen=True, eq=False, kw_only=True)
class Previewer:
    """Every preview of a server."""

    comparer: Comparer
    active: ActiveChecker
    turns: Turns
    decisions: DecisionTable
    gate: ConsistencyGate
    write_timeout_s: float

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
            entries = await self.gate.read(read_recent, self.decisions)
            after = Checker(await self.comparer.compiled(source))
            snapshot, before, now = await self.active.get(consistency, deadline)
        else:
            snapshot, before, now = await self.active.get(consistency, deadline)
            after = before
            in_course = scope.id, await self.comparer.in_course(before.policy, source, scope)
        changes = await self.turns.collect(changed_answers(snapshot, before, after, now, entries))
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
        nothing = in_course is None and await self.gate.compute_cancellable(
            is_same, before.policy, after.policy
        )
        await self._write(iter((preview.totals(),)) if nothing else preview.events(), write)

    async def _write(
        self,
        events: Iterable[PreviewEvent | None],
        write: Callable[[list[PreviewEvent]], Awaitable[None]],
    ) -> None:
        part: list[PreviewEvent] = []
        async for some in self.turns.parts(events):
            for event in some:
                if event is None:
                    continue
                part.append(event)
                if isinstance(event, PreviewProgress | PreviewTotals) or len(part) >= _ROWS_A_PART:
                    await write_within(self.write_timeout_s, write(part), what="preview")
                    part = []
