"""Drafts of the platform's policy: editable copies of a version, and the edits of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

import msgspec

from authz.domain.errors import ErrorReason, FailedPreconditionError
from authz.domain.ids import Subject
from authz.domain.instants import Instant

MAX_DRAFTS = 100
"""How many are kept. Each is as large as a version at most."""
MAX_EDITS = 1000
"""In one call."""
MAX_CONDITIONS = 100
"""Alternatives of one cell."""


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """When a draft is to be published, by whom, and why.

    `caller` and `person` asked for it, as in a `Principal`, and must have the right then, too; `actor` names
    them. With an `error` it has failed, and is due no more.
    """

    at: Instant
    author: str = ""
    reason: str = ""
    caller: Subject | None = None
    person: Subject | None = None
    actor: str = ""
    request_id: str = ""
    error: str = ""


class PolicyDraft(msgspec.Struct, frozen=True, kw_only=True):
    """An editable copy of version `base_number`. `etag` grows with each change.

    Until `claimed_until`, a server publishes it, and nobody else changes it.
    """

    id: str
    etag: int
    base_number: int
    files: str
    author: str
    created_at: Instant
    edited_at: Instant
    publication: Publication | None = None
    claimed_until: Instant | None = None

    @property
    def publish_at(self) -> Instant | None:
        """When it is due to be published."""
        publication = self.publication
        return None if publication is None or publication.error else publication.at

    def stale(self) -> FailedPreconditionError:
        """The error for a call with another etag."""
        return FailedPreconditionError(
            ErrorReason.PRECONDITION_FAILED,
            f"draft `{self.id}` has been edited since it was read; read it again",
            key=self.id,
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


class Drafts(Protocol):
    """Where drafts are kept. They are in no change log: no server decides by them. Every call blocks."""

    def create(self, draft: PolicyDraft) -> None:
        """Raises `AlreadyExistsError` if there is one with this id, and `FailedPreconditionError`
        (TOO_MANY_DRAFTS) if `MAX_DRAFTS` are kept."""

    def list(self) -> tuple[PolicyDraft, ...]:
        """All of them, ordered by id, without files."""

    def read(self, draft_id: str) -> PolicyDraft:
        """Raises `NotFoundError` (DRAFT_NOT_FOUND)."""

    def replace(self, draft: PolicyDraft, *, etag: int) -> None:
        """Store another state of a draft in place of the one with an etag.

        Raises `NotFoundError`, and `FailedPreconditionError` if the draft has another etag.
        """

    def delete(self, draft_id: str, *, etag: int) -> None:
        """Raises as `replace`."""

    def claim(self, now: Instant, until: Instant) -> PolicyDraft | None:
        """Take the draft that is due first, and is not claimed at `now`, for as long as `until`.

        None if there is none, or another process was faster. With an older etag it cannot be changed.
        """
