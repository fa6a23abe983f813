"""Drafts of policies: editable copies of a version of the platform's or a course's policy, and edits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import msgspec

from authz.domain.errors import ErrorReason, FailedPreconditionError, precondition_failed
from authz.domain.ids import PLATFORM, Scope, Subject
from authz.domain.instants import Instant
from authz.domain.origin import Origin

MAX_DRAFTS = 100
"""Maximum drafts of the platform's policy. Each is at most as large as a version."""
MAX_DRAFTS_OF_COURSE = 10
"""Maximum drafts of each course."""
MAX_EDITS = 100
"""In one call."""
MAX_CONDITIONS = 100
"""Alternatives of one cell."""


def of_course(scope: Scope) -> str:
    """The option with which a command is about the policy of a course; empty for that of the platform."""
    return "" if scope == PLATFORM else f" --course {scope.id}"


def no_course(scope: Scope) -> FailedPreconditionError:
    """The error for the policy of a course that does not exist."""
    return FailedPreconditionError(
        ErrorReason.REFERENCE_NOT_FOUND,
        f"{scope} does not exist, so it has no policy; write the course first",
        key=str(scope),
    )


class Authorship(Origin, frozen=True, kw_only=True):
    """Who publishes a policy, and why. Without an `author`, the actor is the author.

    With `weaken_invariants`, its invariants may cover less than those of the active version.
    """

    author: str = ""
    weaken_invariants: bool = False


class Publication(Authorship, frozen=True, kw_only=True):
    """When a draft is to be published, by whom, and why.

    `caller` and `person` asked for it, as in a `Principal`, and must have the right then, too; `actor` names
    them. With an `error` it has failed, and is due no more.
    """

    at: Instant
    caller: Subject | None = None
    person: Subject | None = None
    error: str = ""

    @property
    def due_at(self) -> Instant | None:
        """None once it has failed."""
        return None if self.error else self.at


class DraftKey(NamedTuple):
    """The name of a draft, among those of the platform or of one course."""

    id: str
    scope: Scope = PLATFORM

    def __str__(self) -> str:
        return f"`{self.id}`" if self.scope == PLATFORM else f"`{self.id}` of {self.scope}"


class PolicyDraft(msgspec.Struct, frozen=True, kw_only=True):
    """An editable copy of version `base_number`; 0 if the course had none. `etag` grows with each change.

    Until `claimed_until`, a server publishes it, and nobody else changes it.
    """

    id: str
    scope: Scope = PLATFORM
    etag: int
    base_number: int
    files: str
    author: str
    created_at: Instant
    edited_at: Instant
    publication: Publication | None = None
    claimed_until: Instant | None = None

    @property
    def key(self) -> DraftKey:
        """Its name."""
        return DraftKey(self.id, self.scope)

    @property
    def publish_at(self) -> Instant | None:
        """When it is due to be published."""
        return None if self.publication is None else self.publication.due_at

    def stale(self) -> FailedPreconditionError:
        """The error for a call with another etag."""
        return precondition_failed(
            f"draft {self.key} has been edited since it was read; read it again", key=self.id
        )


class SetCell(msgspec.Struct, frozen=True):
    """A role may perform an action on a type when one of the conditions holds; an empty one always does."""

    role: str
    type: str
    action: str
    when: tuple[str, ...]


class AddRow(msgspec.Struct, frozen=True):
    """Add a row of text."""

    row: str


class RemoveRow(msgspec.Struct, frozen=True):
    """Remove the row with the same fields."""

    row: str


class PutFile(msgspec.Struct, frozen=True):
    """Add or replace a file."""

    name: str
    text: str


class DeleteFile(msgspec.Struct, frozen=True):
    """Delete a file."""

    name: str


Edit: TypeAlias = SetCell | AddRow | RemoveRow | PutFile | DeleteFile
Files: TypeAlias = Mapping[str, str]
