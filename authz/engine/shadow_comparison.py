"""Compares the decisions of a candidate with those of the active policy, within a budget, and counts them."""

from __future__ import annotations

import time
from collections import Counter

import structlog

from authz.domain.decisions import Decision, Question, Reason, Verdict
from authz.domain.errors import AuthzError, InvalidArgumentError
from authz.domain.facts import fact_names
from authz.domain.ids import PLATFORM
from authz.domain.instants import Instant
from authz.domain.ports import Snapshot
from authz.domain.shadow import (
    MAX_CELLS,
    MAX_EXAMPLES,
    MAX_EXAMPLES_PER_CELL,
    PolicyShadow,
    ShadowCell,
    ShadowCount,
    ShadowExample,
    ShadowTally,
)
from authz.domain.trace import Trace
from authz.engine.check import Checker
from authz.telemetry.metrics import SHADOW_CHECKS, SHADOW_OUTCOMES

log = structlog.get_logger()

_WINDOW_NS = 100_000_000
_WINDOWS_PER_S = 10
_NS_PER_US = 1_000


class ShadowComparison:
    """One shadow in one process: what it compares, and what it has counted since `take` was last called."""

    def __init__(self, shadow: PolicyShadow, candidate: Checker | None) -> None:
        """Compares nothing without `candidate`, if this process cannot read the candidate's policy."""
        self.shadow = shadow
        self.sample_rate = 0.0 if candidate is None else shadow.sample_rate
        self._candidate = candidate
        self._against = str(shadow.against_number)
        self._against_in_course = str(shadow.against_course_number or "")
        self._is_of_course = shadow.scope != PLATFORM
        kind = shadow.scope.kind.value
        self._counters = {outcome: SHADOW_CHECKS.labels(kind, outcome) for outcome in SHADOW_OUTCOMES}
        self._budget_ns = shadow.budget_us * _NS_PER_US // _WINDOWS_PER_S
        self._window_ends_ns = self._spent_ns = 0
        self._examples_taken: Counter[ShadowCell] = Counter()
        self._questions: set[tuple[object, ...]] = set()
        self._is_failure_logged = False
        self._unsaved = ShadowTally()
        self._clear()

    def compare(
        self, checker: Checker, snapshot: Snapshot, question: Question, now: Instant, decision: Decision
    ) -> None:
        """Evaluate the candidate on a check that the active policy decided, unless the budget is spent."""
        if decision.policy_version != self._against or now >= self.shadow.ends_at:
            return
        if self._is_of_course and decision.course_policy_version != self._against_in_course:
            return
        begun_ns = time.perf_counter_ns()
        if begun_ns >= self._window_ends_ns:
            self._window_ends_ns, self._spent_ns = begun_ns + _WINDOW_NS, 0
        if self._spent_ns >= self._budget_ns:
            self._skipped += 1
            self._counters["skipped"].inc()
            return
        try:
            if self._concerns(checker, snapshot, question):
                self._compare(checker, snapshot, question, now, decision.verdict)
        except Exception as error:  # noqa: BLE001  a failing comparison must not fail the check
            self.fail(error)
        took_ns = time.perf_counter_ns() - begun_ns
        self._spent_ns += took_ns
        self._elapsed_ns += took_ns

    def take(self) -> ShadowTally | None:
        """The counts since the last call; None if there are none."""
        taken = self._unsaved.plus(
            ShadowTally(
                compared=self._compared,
                differing=self._differing,
                skipped=self._skipped,
                failed=self._failed,
                elapsed_us=self._elapsed_ns // _NS_PER_US,
                last_failure=self._last_failure,
                cells=tuple(ShadowCount(*each) for each in self._cells.items()),
                examples=tuple(self._examples),
            )
        )
        self._unsaved = ShadowTally()
        self._clear()
        return None if taken == self._unsaved else taken

    def put_back(self, tally: ShadowTally) -> None:
        """Restore counts that were taken but not saved."""
        self._unsaved = tally.plus(self._unsaved)

    def _clear(self) -> None:
        self._compared = self._differing = self._skipped = self._failed = self._elapsed_ns = 0
        self._last_failure = ""
        self._cells: Counter[ShadowCell] = Counter()
        self._examples: list[ShadowExample] = []

    def _concerns(self, checker: Checker, snapshot: Snapshot, question: Question) -> bool:
        """Whether the candidate is consulted: that of a course only for what is in the course."""
        if not self._is_of_course:
            return True
        located = checker.locate(snapshot, question)
        return not isinstance(located, Reason) and located.scope.course_id == self.shadow.scope.id

    def _compare(
        self, checker: Checker, snapshot: Snapshot, question: Question, now: Instant, active: Verdict
    ) -> None:
        candidate = self._decide(snapshot, question, now)
        self._compared += 1
        if active.allowed is (candidate is not None and candidate.allowed):
            self._counters["same"].inc()
            return
        self._differing += 1
        self._counters["loses" if active.allowed else "gains"].inc()
        before, after = Trace(), Trace()
        checker.check(snapshot, question, now, before)
        self._decide(snapshot, question, now, after)
        cell = ShadowCell(
            _roles_of(before, after), question.resource.type, question.action, not active.allowed
        )
        if cell in self._cells or len(self._cells) < MAX_CELLS:
            self._cells[cell] += 1
        taken = self._examples_taken
        if taken[cell] >= MAX_EXAMPLES_PER_CELL or taken.total() >= MAX_EXAMPLES:
            return
        example = ShadowExample(
            cell=cell,
            subject=question.subject,
            resource=question.resource,
            scope=before.scopes[-1] if before.scopes else PLATFORM,
            purpose=question.purpose,
            at=now,
            facts=fact_names((before.facts or 0) | (after.facts or 0)),
            active=active,
            candidate=candidate,
        )
        if example.question not in self._questions:  # which a caller may repeat
            self._questions.add(example.question)
            taken[cell] += 1
            self._examples.append(example)

    def _decide(
        self, snapshot: Snapshot, question: Question, now: Instant, trace: Trace | None = None
    ) -> Verdict | None:
        """The candidate's verdict. None if it does not declare the type or the action."""
        assert self._candidate is not None  # noqa: S101  else nothing is compared; narrows the type
        try:
            return self._candidate.check(snapshot, question, now, trace).verdict
        except InvalidArgumentError:
            return None

    def fail(self, error: Exception) -> None:
        """Count that the candidate could not decide."""
        self._failed += 1
        self._counters["failed"].inc()
        self._last_failure = (
            error.message if isinstance(error, AuthzError) else "an internal error; see the log of the server"
        )
        if not self._is_failure_logged:
            self._is_failure_logged = True
            log.warning("the candidate of the shadow cannot decide", exc_info=error)


def _roles_of(*traces: Trace) -> tuple[str, ...]:
    """The roles that count under either policy."""
    found = {each.gives for trace in traces for each in trace.memberships if each.gives and each.counts}
    return tuple(sorted(found))
