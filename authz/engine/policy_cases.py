"""Runs the tests beside a policy, and says what of the policy they touch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TypeAlias

import msgspec

from authz.domain.decisions import Decision, Rule
from authz.domain.entities import Entity
from authz.domain.ports import Snapshot
from authz.domain.trace import Trace
from authz.engine.check import Checker
from authz.policy.cases import Case, CaseFile
from authz.policy.compile import CompiledPolicy

SnapshotOf: TypeAlias = Callable[[tuple[Entity, ...]], AbstractContextManager[Snapshot]]
"""Holds the entities for as long as the context lasts."""
Cell: TypeAlias = tuple[str, str, str]
"""A role, a type and an action."""


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
    def failed(self) -> tuple[Outcome, ...]:
        """The outcomes with a problem."""
        return tuple(outcome for outcome in self.outcomes if outcome.problem)


def run_case_files(policy: CompiledPolicy, files: Iterable[CaseFile], snapshot_of: SnapshotOf) -> Report:
    """Ask every case of a snapshot of its file's directory."""
    checker = Checker(policy, inline_types=frozenset())
    outcomes: list[Outcome] = []
    rules: set[str] = set()
    cells: set[Cell] = set()
    for file in files:
        with snapshot_of(file.entities) as snapshot:
            for case in file.cases:
                trace = Trace()
                decision = checker.check(snapshot, case.question, case.now, trace)
                outcomes.append(Outcome(file.name, case.name, _problem(case, decision)))
                rules |= {each.rule.source for each in trace.rules if each.matches}
                asked = case.question
                cells |= {(each.gives, asked.resource.type, asked.action) for each in trace.memberships}
    allowed = [cell for cell in _cells(policy) if policy.allows_of(*cell)]
    return Report(
        tuple(outcomes),
        len(policy.rules),
        len(allowed),
        tuple(rule for rule in policy.rules if rule.source not in rules),
        tuple(cell for cell in allowed if cell not in cells),
    )


def _cells(policy: CompiledPolicy) -> Iterator[Cell]:
    for declared in policy.vocabulary.types.values():
        for action in declared.actions:
            for role in policy.vocabulary.roles:
                yield role, declared.name, action


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
