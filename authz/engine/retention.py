"""Reads and sets retention periods, and purges what is older than they allow."""

from __future__ import annotations

from functools import partial

from authz.domain.entities import RetainedData, RetentionRule, Versioned
from authz.domain.retention import PeriodRequest, Retention
from authz.domain.tokens import ConsistencyToken
from authz.engine.background_steps import BackgroundSteps
from authz.engine.consistency import ConsistencyGate
from authz.engine.group_commit import GroupCommitter
from authz.telemetry.metrics import PURGED

_INTERVAL_S = 60.0
"""A purge may be a day late, so it need not be looked for more often."""


class Purger:
    """The retention rules of a server, and the purge that one server at a time runs."""

    def __init__(self, retention: Retention, gate: ConsistencyGate, committer: GroupCommitter) -> None:
        self._retention = retention
        self._gate = gate
        self._committer = committer
        self._steps = BackgroundSteps(
            "purge", retention.purge_progress, self._advance, gate, committer, interval_s=_INTERVAL_S
        )
        for data in RetainedData:
            PURGED.labels(data.lower())

    async def run(self) -> None:
        """Purge until cancelled, through every failure."""
        await self._steps.run()

    async def rules(self) -> tuple[Versioned[RetentionRule], ...]:
        """As `Retention.rules`."""
        return await self._gate.run(self._retention.rules)

    async def set_period(self, request: PeriodRequest) -> tuple[Versioned[RetentionRule], ConsistencyToken]:
        """As `Retention.set_period`."""
        return await self._committer.run_batch(partial(self._retention.set_period, request))

    def _advance(self) -> ConsistencyToken:
        purged = self._retention.advance_purge()
        if purged.data is not None:
            PURGED.labels(purged.data.lower()).inc(purged.removed)
        return purged.state
