"""The calls of PolicyService about drafts."""

from __future__ import annotations

from dataclasses import dataclass

from authz.api.call import Call
from authz.api.permissions import require_policy_edit
from authz.engine.drafts import DraftEditor
from authz.engine.rights import PersonRights
from authz.v1 import policy_pb2 as pb
from authz.wire.drafts import draft_message, parse_draft_key, parse_edits, parse_etag
from authz.wire.policies import fault_messages, parse_author, parse_number, parse_policy_scope


@dataclass(frozen=True, eq=False, kw_only=True)
class DraftCalls:
    """A part of `PolicyServicer`."""

    draft_editor: DraftEditor
    rights: PersonRights

    async def CreatePolicyDraft(
        self, request: pb.CreatePolicyDraftRequest, call: Call
    ) -> pb.CreatePolicyDraftResponse:
        """Make a draft, as a copy of a version."""
        key = parse_draft_key(request)
        await require_policy_edit(call, self.rights, key.scope)
        draft = await self.draft_editor.create(
            key,
            parse_number(request.base_number, field="base_number"),
            author=parse_author(request.author) or call.principal.actor,
        )
        return pb.CreatePolicyDraftResponse(draft=draft_message(draft))

    async def ReadPolicyDrafts(
        self, request: pb.ReadPolicyDraftsRequest, call: Call
    ) -> pb.ReadPolicyDraftsResponse:
        """List the drafts of the platform's policy, or of a course's."""
        scope = parse_policy_scope(request.course_id)
        await require_policy_edit(call, self.rights, scope)
        found = await self.draft_editor.list(scope)
        return pb.ReadPolicyDraftsResponse(drafts=map(draft_message, found))

    async def ReadPolicyDraft(
        self, request: pb.ReadPolicyDraftRequest, call: Call
    ) -> pb.ReadPolicyDraftResponse:
        """Read a draft with its files."""
        key = parse_draft_key(request)
        await require_policy_edit(call, self.rights, key.scope)
        draft = await self.draft_editor.read(key)
        return pb.ReadPolicyDraftResponse(draft=draft_message(draft, with_files=True))

    async def EditPolicyDraft(
        self, request: pb.EditPolicyDraftRequest, call: Call
    ) -> pb.EditPolicyDraftResponse:
        """Apply all edits to a draft, or none."""
        key = parse_draft_key(request)
        await require_policy_edit(call, self.rights, key.scope)
        draft, faults = await self.draft_editor.edit(
            key,
            parse_etag(request.etag),
            tuple(parse_edits(request.edits)),
            rebase=request.rebase,
        )
        return pb.EditPolicyDraftResponse(draft=draft_message(draft), faults=fault_messages(faults))

    async def DeletePolicyDraft(
        self, request: pb.DeletePolicyDraftRequest, call: Call
    ) -> pb.DeletePolicyDraftResponse:
        """Delete a draft."""
        key = parse_draft_key(request)
        await require_policy_edit(call, self.rights, key.scope)
        await self.draft_editor.delete(key, parse_etag(request.etag))
        return pb.DeletePolicyDraftResponse()
