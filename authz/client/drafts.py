"""A draft, as a client receives it."""

from __future__ import annotations

from typing import Any

import msgspec

from authz.domain.errors import PolicyFault, malformed
from authz.domain.instants import Instant
from authz.v1 import policy_pb2
from authz.wire.values import parse_time


class DraftPublication(msgspec.Struct, frozen=True, kw_only=True):
    """That a draft is to be published at a time, by whom and why; with an `error`, why it was not."""

    at: Instant
    author: str
    reason: str
    error: str


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """An editable copy of version `base_number`, of the platform's policy or of that of a course. Send `etag`
    with the next call about the draft.

    Of the calls of `client.policies.drafts`, `files`, by name, are told by `read` alone, and `faults` of the
    rows by `edit` alone.
    """

    id: str
    course_id: str = ""
    etag: str
    base_number: int
    author: str
    created_at: Instant | None
    edited_at: Instant | None
    publication: DraftPublication | None = None
    files: dict[str, str] = {}
    faults: tuple[PolicyFault, ...] = ()


def draft_fields(given: Draft) -> dict[str, Any]:
    """The fields of a request about a draft. Raises `InvalidArgumentError` for what is no draft."""
    if not isinstance(given, Draft):
        raise malformed("draft", "is no draft; give one that `drafts.read` or `drafts.create` has returned")
    return {"id": given.id, "course_id": given.course_id, "etag": given.etag}


def draft_of(message: policy_pb2.PolicyDraft) -> Draft:
    """The draft of a message."""
    return Draft(
        id=message.id,
        course_id=message.course_id,
        etag=message.etag,
        base_number=message.base_number,
        author=message.author,
        created_at=parse_time(message, "created_at", field="created_at"),
        edited_at=parse_time(message, "edited_at", field="edited_at"),
        publication=_publication_of(message.publication) if message.HasField("publication") else None,
        files={file.name: file.text for file in message.files},
    )


def _publication_of(message: policy_pb2.PolicyPublication) -> DraftPublication:
    return DraftPublication(
        at=message.publish_at.ToMicroseconds(),
        author=message.author,
        reason=message.reason,
        error=message.error,
    )
