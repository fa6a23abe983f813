"""Evaluates a candidate alongside the active policy on live checks, in every serving process."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping

import msgspec
import structlog

from authz.domain.consistency import MINIMIZE_LATENCY
from authz.domain.decisions import Decision, Question
from authz.domain.errors import AuthzError, PolicyError
from authz.domain.files import read_files
from authz.domain.ids import PLATFORM, Scope
from authz.domain.instants import Instant
from authz.domain.ports import Snapshot
from authz.domain.shadow import KEPT_US, PolicyShadow
from authz.engine.check import Checker
from authz.engine.clock import DecisionClock
from authz.engine.consistency import ConsistencyGate
from authz.engine.policies import ActiveChecker
from authz.engine.polling import poll
from authz.engine.shadow_comparison import ShadowComparison
from authz.policy.compile import CompiledPolicy
from authz.policy.course import load_course_policy
from authz.policy.load import compile_files
from authz.store.shadows import Shadows

log = structlog.get_logger()

_INTERVAL_S = 1.0
"""How often a process polls for a started or stopped shadow."""
_SAVE_AFTER_S = 5.0
"""How often a process adds its counts to the shared tally."""
_DELETE_AFTER_S = 3_600.0
"""How often a process deletes the shadows that are no longer kept."""


class ShadowRunner:
    """Decides checks, and compares a sample of them with the candidate's decisions. For the event loop.

    The answer always comes from the active policy. Every process reads the shadow from the database, so a
    process that starts later takes part, too. Without the database, a process continues until the end time.
    """

    def __init__(
        self, shadows: Shadows, gate: ConsistencyGate, active: ActiveChecker, clock: DecisionClock
    ) -> None:
        self._shadows = shadows
        self._gate = gate
        self._active = active
        self._clock = clock
        self._comparisons: tuple[ShadowComparison, ...] = ()
        self._saved_at = 0.0
        self._deletes_at = 0.0

    def check(self, checker: Checker, snapshot: Snapshot, question: Question, now: Instant) -> Decision:
        """As `Checker.check`."""
        decision = checker.check(snapshot, question, now)
        for each in self._comparisons:
            if random.random() < each.sample_rate:  # noqa: S311  no secret
                each.compare(checker, snapshot, question, now, decision)
        return decision

    def list_actions(
        self, checker: Checker, snapshot: Snapshot, question: Question, now: Instant
    ) -> dict[str, Decision]:
        """As `Checker.list_actions`. Each action is a check."""
        found = checker.list_actions(snapshot, question, now)
        for each in self._comparisons:
            for action, decision in found.items():
                if random.random() < each.sample_rate:  # noqa: S311  no secret
                    asked = msgspec.structs.replace(question, action=action)
                    each.compare(checker, snapshot, asked, now, decision)
        return found

    async def run(self) -> None:
        """Follow the shadows that the database names until cancelled, through every failure."""
        try:
            await poll(self._follow, interval_s=_INTERVAL_S, work="shadows")
        finally:
            await self._end_all()

    async def _follow(self) -> None:
        now = self._clock.at(0)
        running = await self._gate.run(self._shadows.running, now)
        for each in self._comparisons:
            if each.shadow not in running:
                await self._end(each)
        known = {each.shadow for each in self._comparisons}
        opened = [await self._opened(shadow) for shadow in running if shadow not in known]
        self._comparisons += tuple(each for each in opened if each is not None)
        if time.monotonic() - self._saved_at > _SAVE_AFTER_S:
            for each in self._comparisons:
                await self._save(each)
        if time.monotonic() >= self._deletes_at:
            await self._gate.run(self._shadows.delete_ended, now - KEPT_US)
            self._deletes_at = time.monotonic() + _DELETE_AFTER_S

    async def _opened(self, shadow: PolicyShadow) -> ShadowComparison | None:
        """None if the shadow has ended, or is to be compared with a version that is not active here."""
        _, active, _ = await self._active.get(MINIMIZE_LATENCY, None)
        if active.version != str(shadow.against_number):
            return None
        files = await self._gate.run(self._shadows.files, shadow.id)
        if files is None:
            return None
        try:
            candidate = await self._gate.compute(
                self._candidate, shadow.scope, read_files(files), active.policy
            )
        except PolicyError as error:
            # Of a newer release than this server.
            comparison = ShadowComparison(shadow, None)
            comparison.fail(error)
            return comparison
        log.info("shadow started", shadow=shadow.id, scope=str(shadow.scope), sample_rate=shadow.sample_rate)
        return ShadowComparison(shadow, candidate)

    def _candidate(self, scope: Scope, files: Mapping[str, str], platform: CompiledPolicy) -> Checker:
        """What decides by the candidate. Raises `PolicyError`."""
        if scope == PLATFORM:
            return self._active.checker(compile_files(files))
        return self._active.course_checker(load_course_policy(platform, scope.id, files))

    async def _save(self, comparison: ShadowComparison) -> None:
        """Add the counts to the shared tally. If that fails, keep them for the next time."""
        tally = comparison.take()
        if tally is None:
            return
        self._saved_at = time.monotonic()
        saving = asyncio.ensure_future(self._gate.run(self._shadows.add, comparison.shadow.id, tally))
        try:
            # Its thread continues when this task is cancelled. Counts put back then would be added twice.
            await asyncio.shield(saving)
        except BaseException:
            await asyncio.wait([saving])
            if saving.exception() is not None:
                comparison.put_back(tally)
            raise

    async def _end(self, comparison: ShadowComparison) -> None:
        comparison.sample_rate = 0.0
        await self._save(comparison)
        self._comparisons = tuple(each for each in self._comparisons if each is not comparison)
        log.info("shadow ended", shadow=comparison.shadow.id, scope=str(comparison.shadow.scope))

    async def _end_all(self) -> None:
        for each in self._comparisons:
            try:
                await self._end(each)
            except AuthzError as error:
                log.warning("counts of the shadow lost", error=error.message)
        self._comparisons = ()
