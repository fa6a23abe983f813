"""Runs the tests of a policy, and says what of the policy they touch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

import msgspec

from authz.domain.decisions import Decision, Rule
from authz.domain.entities import Entity
from authz.domain.errors import PolicyError, PolicyFault
from authz.domain.ports import Snapshot
from authz.domain.trace import Trace
from authz.engine.check import Checker
from authz.policy.cases import TESTS_FOLDER, Case, CaseFile, fault_of_case
from authz.policy.compile import CompiledPolicy
from authz.policy.prove import never_cancelled
from authz.policy.versions import ProvedPolicy, prove_files

Cell: TypeAlias = tuple[str, str, str]
"""A role, a type and an action."""
_MAX_TESTS_S = 30.0
"""How long the tests of a policy may take when it is published."""


class SnapshotOf(Protocol):
    """Makes a snapshot of the entities, at a revision, for as long as the context lasts."""

    def __call__(
        self, entities: Iterable[Entity], *, revision: int = 1
    ) -> AbstractContextManager[Snapshot]: ...


class Outcome(msgspec.Struct, frozen=True):
    """What a case came to. `problem` is empty if the answer is the expected one."""

    file: str
    case: str
    problem: str


class Report(msgspec.Struct, frozen=True):
    """All outcomes, and what no case touches: rules that never matched, and cells that rules allow and that
    nobody asked about."""

    outcomes: tuple[Outcome, ...]
    rules: int
    cells: int
    untouched_rules: tuple[Rule, ...]
    untouched_cells: tuple[Cell, ...]

    @property
    def passed(self) -> int:
        """How many outcomes have no problem."""
        return len(self.outcomes) - len(self.failed)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The outcomes with a problem."""
        return tuple(outcome for outcome in self.outcomes if outcome.problem)


def prove_and_test(
    files: Mapping[str, str], snapshot_of: SnapshotOf, require_not_cancelled: Callable[[], object]
) -> tuple[ProvedPolicy, Report]:
    """What a policy must pass before it is published: it has no fault, keeps its invariants, and passes its
    own tests. Raises `PolicyError` with everything that is wrong at the first of the three that fails, and
    what `require_not_cancelled` raises, which each step calls."""
    proved = prove_files(files, require_not_cancelled)
    end_at = time.monotonic() + _MAX_TESTS_S
    report = run_case_files(proved.policy, proved.tests, snapshot_of, require_not_cancelled, end_at=end_at)
    if report.failed:
        faults = (fault_of_case(files, each.file, each.case, each.problem) for each in report.failed)
        raise PolicyError(tuple(sorted(faults)))
    return proved, report


def run_case_files(
    policy: CompiledPolicy,
    files: Iterable[CaseFile],
    snapshot_of: SnapshotOf,
    require_not_cancelled: Callable[[], object] = never_cancelled,
    *,
    end_at: float | None = None,
) -> Report:
    """Ask every case of a snapshot of its file's directory; for each, call `require_not_cancelled`.

    Raises `PolicyError` if that is not done at `end_at`, on the clock of `time.monotonic`.
    """
    checker = Checker(policy)
    outcomes: list[Outcome] = []
    rules: set[str] = set()
    cells: set[Cell] = set()
    for file in files:
        with snapshot_of(file.entities) as snapshot:
            for case in file.cases:
                require_not_cancelled()
                if end_at is not None and time.monotonic() > end_at:
                    raise _too_slow(file.name)
                trace = Trace()
                decision = checker.check(snapshot, case.question, case.now, trace)
                outcomes.append(Outcome(file.name, case.name, _problem(case, decision)))
                rules |= {each.rule.source for each in trace.rules if each.matches}
                asked = case.question
                cells |= {(each.gives, asked.resource.type, asked.action) for each in trace.memberships}
    declared = policy.vocabulary
    every = ((role, *pair) for pair in declared.actions for role in declared.roles)
    allowed = [cell for cell in every if policy.allows_of(*cell)]
    return Report(
        tuple(outcomes),
        len(policy.rules),
        len(allowed),
        tuple(rule for rule in policy.rules if rule.source not in rules),
        tuple(cell for cell in allowed if cell not in cells),
    )


def _too_slow(file: str) -> PolicyError:
    text = "the tests take too long to be run on every publish; leave out cases or records"
    return PolicyError((PolicyFault(f"{TESTS_FOLDER}/{file}", 1, 1, text),))


def _problem(case: Case, decision: Decision) -> str:
    rule = decision.rule
    by = "" if rule is None else f" by {rule.source}"
    got = f"is {'allowed' if decision.allowed else 'denied'} ({decision.reason}{by})"
    if decision.allowed is not case.allowed:
        return f"{got}, not {'allowed' if case.allowed else 'denied'}"
    if case.reason is not None and decision.reason is not case.reason:
        return f"{got}, not for {case.reason}"
    if case.rule_role is not None and (rule is None or rule.role != case.rule_role):
        return f"{got}, not by a row of `{case.rule_role}`"
    return ""
