"""The drafts of the platform's policy, seen from a client."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from authz.domain.drafts import Edit
from authz.domain.errors import PolicyFault
from authz.domain.instants import Instant
from authz.v1 import policy_pb2, policy_pb2_grpc
from authz.wire.drafts import edit_message
from authz.wire.values import parse_time


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """An editable copy of version `base_number`. Send `etag` with the next call about the draft. `files`, by
    name, are read by `DraftClient.read` alone; `faults` of its rows are told by `DraftClient.edit` alone."""

    id: str
    etag: str
    base_number: int
    author: str
    created_at: Instant | None
    edited_at: Instant | None
    files: dict[str, str] = {}
    faults: tuple[PolicyFault, ...] = ()


class DraftClient:
    """`Client.policies.drafts`: makes and edits drafts. Every call raises `CallError`."""

    def __init__(
        self, stub: policy_pb2_grpc.PolicyServiceStub, call: Callable[[Callable[..., Any], object], Any]
    ) -> None:
        self._stub = stub
        self._call = call

    def create(self, draft_id: str, *, base: int = 0, author: str = "") -> Draft:
        """A draft with the files of a version, of the active one for 0."""
        request = policy_pb2.CreatePolicyDraftRequest(id=draft_id, base_number=base, author=author)
        return _draft(self._call(self._stub.CreatePolicyDraft, request).draft)

    def list(self) -> list[Draft]:
        """All drafts, ordered by id."""
        response = self._call(self._stub.ReadPolicyDrafts, policy_pb2.ReadPolicyDraftsRequest())
        return [_draft(each) for each in response.drafts]

    def read(self, draft_id: str) -> Draft:
        """A draft with its files."""
        request = policy_pb2.ReadPolicyDraftRequest(id=draft_id)
        return _draft(self._call(self._stub.ReadPolicyDraft, request).draft)

    def edit(self, draft: Draft, edits: Iterable[Edit] = (), *, rebase: bool = False) -> Draft:
        """Make all edits or none; fails if somebody else has edited the draft. With `rebase` it first moves
        onto the active version."""
        messages = map(edit_message, edits)
        request = policy_pb2.EditPolicyDraftRequest(
            id=draft.id, etag=draft.etag, edits=messages, rebase=rebase
        )
        response = self._call(self._stub.EditPolicyDraft, request)
        faults = (PolicyFault(each.file, each.line, each.column, each.message) for each in response.faults)
        return msgspec.structs.replace(_draft(response.draft), faults=tuple(faults))

    def delete(self, draft: Draft) -> None:
        """Delete it; fails if somebody else has edited it."""
        request = policy_pb2.DeletePolicyDraftRequest(id=draft.id, etag=draft.etag)
        self._call(self._stub.DeletePolicyDraft, request)


def _draft(message: policy_pb2.PolicyDraft) -> Draft:
    return Draft(
        id=message.id,
        etag=message.etag,
        base_number=message.base_number,
        author=message.author,
        created_at=parse_time(message, "created_at", field="created_at"),
        edited_at=parse_time(message, "edited_at", field="edited_at"),
        files={file.name: file.text for file in message.files},
    )
