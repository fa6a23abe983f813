"""The client of policy drafts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

import msgspec

from authz.client.aio.calls import Calls
from authz.client.arguments import as_list, message_of, sent_course, sent_time
from authz.client.drafts import Draft, draft_fields, draft_of
from authz.client.policies import PROOF_TIMEOUT_S, faults_of
from authz.domain.drafts import Edit
from authz.domain.instants import Instant
from authz.v1 import policy_pb2, policy_pb2_grpc
from authz.wire.drafts import edit_message


class AsyncDraftClient:
    """`Client.policies.drafts`: makes and edits drafts. Every call raises `CallError`.

    With `course_id`, a call is about the drafts of the policy that this course has of its own.
    """

    def __init__(self, stub: policy_pb2_grpc.PolicyServiceAsyncStub, calls: Calls) -> None:
        self._stub = stub
        self._calls = calls
        self._proofs = calls.at_least(PROOF_TIMEOUT_S)

    async def create(
        self, draft_id: str, *, base: int = 0, author: str = "", course_id: str | None = None
    ) -> Draft:
        """A draft with the files of a version, of the active one for 0."""
        request = message_of(
            policy_pb2.CreatePolicyDraftRequest,
            id=draft_id,
            base_number=base,
            author=author,
            course_id=sent_course(course_id),
        )
        response = await self._calls.call(self._stub.CreatePolicyDraft, request)
        return draft_of(response.draft)

    async def list(self, *, course_id: str | None = None) -> list[Draft]:
        """All drafts of one policy, ordered by id."""
        request = message_of(policy_pb2.ReadPolicyDraftsRequest, course_id=sent_course(course_id))
        response = await self._calls.call(self._stub.ReadPolicyDrafts, request)
        return [draft_of(each) for each in response.drafts]

    async def read(self, draft_id: str, *, course_id: str | None = None) -> Draft:
        """A draft with its files."""
        request = message_of(policy_pb2.ReadPolicyDraftRequest, id=draft_id, course_id=sent_course(course_id))
        response = await self._calls.call(self._stub.ReadPolicyDraft, request)
        return draft_of(response.draft)

    async def edit(self, draft: Draft, edits: Iterable[Edit] = (), *, rebase: bool = False) -> Draft:
        """Make all edits or none; fails if somebody else has edited the draft. With `rebase` it first moves
        onto the active version."""
        messages = [edit_message(each) for each in as_list(edits, field="edits")]
        request = message_of(
            policy_pb2.EditPolicyDraftRequest,
            **draft_fields(draft),
            edits=messages,
            rebase=rebase,
        )
        response = await self._proofs.call(self._stub.EditPolicyDraft, request)
        return msgspec.structs.replace(draft_of(response.draft), faults=faults_of(response))

    async def schedule(
        self,
        draft: Draft,
        at: dt.datetime | Instant,
        *,
        author: str = "",
        reason: str = "",
        weaken_invariants: bool = False,
    ) -> Draft:
        """Schedule its publication, if it could be published now. Until then, nobody can edit it.
        `weaken_invariants` as in `policies.publish`."""
        request = message_of(
            policy_pb2.SchedulePolicyDraftRequest,
            **draft_fields(draft),
            publish_at=sent_time(at, field="at"),
            author=author,
            reason=reason,
            weaken_invariants=weaken_invariants,
        )
        return draft_of((await self._proofs.call(self._stub.SchedulePolicyDraft, request)).draft)

    async def cancel(self, draft: Draft) -> Draft:
        """Cancel its publication; it stays a draft."""
        request = message_of(
            policy_pb2.SchedulePolicyDraftRequest,
            **draft_fields(draft),
        )
        return draft_of((await self._calls.call(self._stub.SchedulePolicyDraft, request)).draft)

    async def delete(self, draft: Draft) -> None:
        """Delete it; fails if somebody else has edited it."""
        request = message_of(
            policy_pb2.DeletePolicyDraftRequest,
            **draft_fields(draft),
        )
        await self._calls.call(self._stub.DeletePolicyDraft, request)
