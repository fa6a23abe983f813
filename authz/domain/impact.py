"""What a change of the policy does to whom, in the directory as it is: the values of a preview."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from authz.domain.decisions import Verdict
from authz.domain.facts import PURPOSE_AI_RESPONSE
from authz.domain.ids import ResourceRef, Scope, Subject
from authz.domain.instants import Instant

MAX_EXAMPLES = 100
MAX_LARGEST = 1000


class AccessKind(NamedTuple):
    """One action on one type that is gained or lost.

    `purposes` are those for which: of plain use (empty) and `ai_response`, one or both.
    """

    type: str
    action: str
    purposes: tuple[str, ...]
    gains: bool

    def __str__(self) -> str:
        return self.said_of(1)

    def said_of(self, subjects: int) -> str:
        """In words, of one subject or of several."""
        verb = ("gain" if self.gains else "lose") + ("s" if subjects == 1 else "")
        only_ai = " for AI responses" if self.purposes == (PURPOSE_AI_RESPONSE,) else ""
        return f"{verb} {self.action} on {self.type}{only_ai}"


class Example(NamedTuple):
    """A resource and the scope that it is in. For `create` the id is empty: there is none yet."""

    resource: ResourceRef
    scope: Scope

    def __str__(self) -> str:
        return str(self.resource) if self.resource.id else f"a new {self.resource.type} in {self.scope}"


class AccessChange(msgspec.Struct, frozen=True, kw_only=True):
    """How the access of a subject changes: of one kind, to `count` resources.

    `before` and `after` are the verdicts on the first example; None where the policy does not declare the
    type or the action, so that nobody can ask. If the example is the subject's own, or shared with it, and
    that does not matter to the change, they are those of others.
    """

    kind: AccessKind
    count: int
    examples: tuple[Example, ...]
    before: Verdict | None
    after: Verdict | None


class Impact(msgspec.Struct, frozen=True):
    """What changes for subjects in one scope: the same for each of them.

    The scope of a course stands for the course with all its sessions; the scope of a session for one without
    a course; the platform for what is created there.
    """

    scope: Scope
    subjects: tuple[Subject, ...]
    changes: tuple[AccessChange, ...]

    @property
    def size(self) -> int:
        """To how many resources and actions the access of each subject changes."""
        return sum(change.count for change in self.changes)


class PreviewProgress(msgspec.Struct, frozen=True):
    """How many pairs of a subject and a scope were evaluated, of how many in total."""

    members: int
    total: int


class KindTotal(msgspec.Struct, frozen=True):
    """How many subjects a kind of change concerns, a subject counted in each course, and to how many
    resources in all."""

    kind: AccessKind
    subjects: int
    count: int


class RecentDecisions(msgspec.Struct, frozen=True):
    """Of the newest `count` decisions that are logged in the database, back to `since`: how many of the
    questions the policy would answer now otherwise than the active one. A question that described its
    resource itself counts as unchanged."""

    count: int
    changed: int
    since: Instant


class PreviewTotals(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a preview: what was read, the counts, and the rows with the most changes, the largest first.

    `policy_version` is the active one, which the other policy was held against. `rows` counts pairs of a
    subject and a scope; `scopes` the courses and sessions that have a row. `recent` is None without a
    decision log in the database, and for the policy of a course.
    """

    policy_version: str
    checked_at: str
    now: Instant
    members: int
    rows: int
    scopes: int
    kinds: tuple[KindTotal, ...]
    largest: tuple[Impact, ...]
    recent: RecentDecisions | None = None
