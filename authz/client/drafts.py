"""A draft, as a client receives it."""

from __future__ import annotations

from typing import Any

import msgspec

from authz.domain.errors import PolicyFault, malformed
from authz.domain.instants import Instant
from authz.v1 import policy_pb2
from authz.wire.forms import Form, received


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


draft_of = Form(
    Draft,
    policy_pb2.PolicyDraft,
    without=("faults",),
    publication=Form(DraftPublication, policy_pb2.PolicyPublication, names={"at": "publish_at"}),
    files=received(lambda files: {file.name: file.text for file in files}),
).parse
"""The draft of a message."""
