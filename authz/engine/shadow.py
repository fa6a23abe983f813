"""Evaluates a candidate alongside the active policy on live checks, in every serving process."""

from __future__ import annotations

import random
import time
from functools import partial

import msgspec
import structlog

from authz.domain.decisions import Decision, Question
from authz.domain.errors import AuthzError, PolicyError
from authz.domain.files import read_files
from authz.domain.instants import Instant
from authz.domain.ports import Snapshot
from authz.domain.shadow import KEPT_US, PolicyShadow, Shadows
from authz.engine.check import Checker
from authz.engine.clock import DecisionClock
from authz.engine.consistency import ConsistencyGate
from authz.engine.policies import ActiveChecker
from authz.engine.polling import poll
from authz.engine.shadow_run import ShadowRun
from authz.policy.compile import CompiledPolicy
from authz.policy.load import compile_files

log = structlog.get_logger()

_INTERVAL_S = 1.0
"""How often a process polls for a started or stopped shadow."""
_SAVE_AFTER_S = 5.0
"""How often a process adds its counts to the shared tally."""


class Shadow:
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
        self._run: ShadowRun | None = None
        self._saved_at = 0.0

    def check(self, checker: Checker, snapshot: Snapshot, question: Question, now: Instant) -> Decision:
        """As `Checker.check`."""
        decision = checker.check(snapshot, question, now)
        run = self._run
        if run is not None and random.random() < run.share:  # noqa: S311  no secret
            run.compare(checker, snapshot, question, now, decision)
        return decision

    def list_actions(
        self, checker: Checker, snapshot: Snapshot, question: Question, now: Instant
    ) -> dict[str, Decision]:
        """As `Checker.list_actions`. Each action is a check."""
        found, run = checker.list_actions(snapshot, question, now), self._run
        for action, decision in found.items() if run is not None else ():
            if run is not None and random.random() < run.share:  # noqa: S311  no secret
                asked = msgspec.structs.replace(question, action=action)
                run.compare(checker, snapshot, asked, now, decision)
        return found

    async def run(self) -> None:
        """Follow the shadow that the database names until cancelled, through every failure."""
        try:
            await poll(
                self._follow,
                interval_s=_INTERVAL_S,
                unavailable="shadow not saved until the database answers",
            )
        finally:
            await self._end()

    async def _follow(self) -> None:
        current = await self._gate.run(self._shadows.current)
        now, run = self._clock.at(0), self._run
        is_running = current is not None and now < current.ends_at
        if run is not None and not (is_running and current == run.shadow):
            run.share = 0.0
            await self._save(run)
            self._run = None
            log.info("shadow ended", shadow=run.shadow.id)
        if current is None:
            return
        if is_running and self._run is None:
            self._run = await self._opened(current)
        elif self._run is not None and time.monotonic() - self._saved_at > _SAVE_AFTER_S:
            await self._save(self._run)
        elif now >= current.ends_at + KEPT_US:
            await self._gate.run(partial(self._shadows.delete, current.id))

    async def _opened(self, shadow: PolicyShadow) -> ShadowRun | None:
        files = await self._gate.run(partial(self._shadows.files, shadow.id))
        if files is None:
            return None
        try:
            policy: CompiledPolicy = await self._gate.run(partial(compile_files, read_files(files)))
        except PolicyError as error:
            # Of a newer release than this server.
            run = ShadowRun(shadow, None)
            run.fail(error)
            return run
        log.info("shadow started", shadow=shadow.id, share=shadow.share)
        return ShadowRun(shadow, self._active.checker(policy))

    async def _save(self, run: ShadowRun) -> None:
        """Add the counts to the shared tally. If that fails, keep them for the next time."""
        tally = run.take()
        if tally is None:
            return
        self._saved_at = time.monotonic()
        try:
            await self._gate.run(partial(self._shadows.add, run.shadow.id, tally))
        except BaseException:
            run.put_back(tally)
            raise

    async def _end(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            try:
                await self._save(run)
            except AuthzError as error:
                log.warning("counts of the shadow lost", error=error.message)
