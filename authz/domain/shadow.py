"""A shadow: a candidate evaluated alongside the active policy on live checks, and the differences."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import NamedTuple

import msgspec

from authz.domain.decisions import Verdict
from authz.domain.ids import PLATFORM, ResourceRef, Scope, Subject
from authz.domain.instants import DAY_US, Instant

MAX_CELLS = 500
"""Maximum cells with their own count; differences in other cells are only in the total."""
MAX_EXAMPLES = 50
MAX_EXAMPLES_PER_CELL = 3
MAX_LENGTH_US = 30 * DAY_US
"""Maximum duration of a shadow."""
KEPT_US = 30 * DAY_US
"""Retention of the counts and examples of an ended shadow."""
MAX_COURSE_SHADOWS = 10
"""Maximum courses with a running shadow, because each costs every serving process its budget."""


class PolicyShadow(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate (a version, or a draft as of the start) and the parameters of the shadow.

    Servers evaluate it for a sample of the checks, at `sample_rate`, while version `against_number` of the
    platform's policy is active, until `ends_at`. Each serving process spends at most `budget_us` per second
    on it. `id` identifies the shadow.

    With the scope of a course, the candidate is a policy of this course. Servers evaluate it for checks in
    the course, and only while version `against_course_number` (0 for none) is active there, too.
    """

    id: str = ""
    scope: Scope = PLATFORM
    number: int = 0
    draft_id: str = ""
    files: str = ""
    against_number: int
    against_course_number: int = 0
    sample_rate: float
    budget_us: int
    author: str
    started_at: Instant
    ends_at: Instant


class ShadowCell(NamedTuple):
    """Who holds these roles, and no other that counts, gains or loses an action on a type."""

    roles: tuple[str, ...]
    type: str
    action: str
    gains: bool

    def __str__(self) -> str:
        roles = " + ".join(self.roles) or "nobody's role"
        return f"{roles} {'gains' if self.gains else 'loses'} {self.action} on {self.type}"


class ShadowCount(NamedTuple):
    """The number of differing checks of a cell."""

    cell: ShadowCell
    checks: int


class ShadowExample(msgspec.Struct, frozen=True, kw_only=True):
    """A check that the two decided differently. `facts` held; the resource is in `scope`.

    A policy without a verdict does not declare the type or the action.
    """

    cell: ShadowCell
    subject: Subject
    resource: ResourceRef
    scope: Scope
    purpose: str
    at: Instant
    facts: tuple[str, ...]
    active: Verdict | None
    candidate: Verdict | None

    @property
    def question(self) -> tuple[object, ...]:
        """What was asked, and how its answer differs: one example of each is enough."""
        return self.cell, self.subject, self.resource, self.scope, self.purpose


class ShadowTally(msgspec.Struct, frozen=True, kw_only=True):
    """The results of a shadow.

    Both policies decided `compared` checks, and `differing` of them differently. `skipped` checks were not
    compared, because the budget was spent. The candidate could not decide `failed` checks; `last_failure`
    says why for the last of them. `elapsed_us` is the total time spent. The cells are unordered.
    """

    compared: int = 0
    differing: int = 0
    skipped: int = 0
    failed: int = 0
    elapsed_us: int = 0
    last_failure: str = ""
    cells: tuple[ShadowCount, ...] = ()
    examples: tuple[ShadowExample, ...] = ()

    def plus(self, later: ShadowTally) -> ShadowTally:
        """The sum of two, within the bounds of cells and examples."""
        counts = Counter(dict(self.cells))
        for cell, checks in later.cells:
            if cell in counts or len(counts) < MAX_CELLS:
                counts[cell] += checks
        examples, per_cell = list(self.examples), Counter(each.cell for each in self.examples)
        questions = {each.question for each in examples}
        for each in later.examples:
            if each.question in questions or per_cell[each.cell] >= MAX_EXAMPLES_PER_CELL:
                continue
            if len(examples) < MAX_EXAMPLES:
                examples.append(each)
                questions.add(each.question)
                per_cell[each.cell] += 1
        names = ("compared", "differing", "skipped", "failed", "elapsed_us")
        return ShadowTally(
            **{name: getattr(self, name) + getattr(later, name) for name in names},
            last_failure=later.last_failure or self.last_failure,
            cells=tuple(ShadowCount(*each) for each in counts.items()),
            examples=tuple(examples),
        )


class ShadowState(StrEnum):
    """Whether a shadow compares checks. SUPERSEDED: another version has become active since its start."""

    RUNNING = "RUNNING"
    ENDED = "ENDED"
    SUPERSEDED = "SUPERSEDED"


class ShadowReport(msgspec.Struct, frozen=True):
    """A shadow without its files, and its results so far."""

    shadow: PolicyShadow
    state: ShadowState
    tally: ShadowTally
