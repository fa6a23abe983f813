"""The calls of PolicyService about drafts."""

from __future__ import annotations

from authz.api.call import Call
from authz.engine.drafts import Drafting
from authz.engine.rights import Rights
from authz.v1 import policy_pb2 as pb
from authz.wire.drafts import draft_message, parse_draft_id, parse_edits, parse_etag
from authz.wire.policies import fault_message, parse_author, parse_number


class DraftCalls:
    """A part of `PolicyServicer`."""

    _drafting: Drafting
    _rights: Rights

    async def CreatePolicyDraft(
        self, request: pb.CreatePolicyDraftRequest, call: Call
    ) -> pb.CreatePolicyDraftResponse:
        """A copy of a version."""
        await self._rights.require_policy_edit(call.principal.on_behalf_of)
        draft = await self._drafting.create(
            parse_draft_id(request.id),
            parse_number(request.base_number, field="base_number"),
            author=parse_author(request.author) or call.principal.actor,
        )
        return pb.CreatePolicyDraftResponse(draft=draft_message(draft))

    async def ReadPolicyDrafts(
        self, _request: pb.ReadPolicyDraftsRequest, _call: Call
    ) -> pb.ReadPolicyDraftsResponse:
        """All of them."""
        return pb.ReadPolicyDraftsResponse(drafts=map(draft_message, await self._drafting.list()))

    async def ReadPolicyDraft(
        self, request: pb.ReadPolicyDraftRequest, _call: Call
    ) -> pb.ReadPolicyDraftResponse:
        """One with its files."""
        draft = await self._drafting.read(parse_draft_id(request.id))
        return pb.ReadPolicyDraftResponse(draft=draft_message(draft, with_files=True))

    async def EditPolicyDraft(
        self, request: pb.EditPolicyDraftRequest, call: Call
    ) -> pb.EditPolicyDraftResponse:
        """All edits or none."""
        await self._rights.require_policy_edit(call.principal.on_behalf_of)
        draft, faults = await self._drafting.edit(
            parse_draft_id(request.id),
            parse_etag(request.etag),
            tuple(parse_edits(request.edits)),
            rebase=request.rebase,
        )
        return pb.EditPolicyDraftResponse(draft=draft_message(draft), faults=map(fault_message, faults))

    async def DeletePolicyDraft(
        self, request: pb.DeletePolicyDraftRequest, call: Call
    ) -> pb.DeletePolicyDraftResponse:
        """For good."""
        await self._rights.require_policy_edit(call.principal.on_behalf_of)
        await self._drafting.delete(parse_draft_id(request.id), parse_etag(request.etag))
        return pb.DeletePolicyDraftResponse()
