"""The calls of PolicyService about the shadow."""

from __future__ import annotations

from dataclasses import dataclass

from authz.api.call import Call
from authz.api.permissions import require_policy_edit
from authz.domain.ids import parse_id
from authz.engine.rights import PersonRights
from authz.engine.shadow_control import ShadowControl, ShadowRequest
from authz.v1 import policy_pb2 as pb
from authz.wire.policies import parse_author, parse_number, parse_policy_scope
from authz.wire.shadows import parse_trial, shadow_message
from authz.wire.values import parse_time


@dataclass(frozen=True, eq=False, kw_only=True)
class ShadowCalls:
    """A part of `PolicyServicer`."""

    shadow_control: ShadowControl
    rights: PersonRights

    async def StartPolicyShadow(
        self, request: pb.StartPolicyShadowRequest, call: Call
    ) -> pb.StartPolicyShadowResponse:
        """Start to evaluate a candidate alongside the active policy."""
        sample_rate, budget_us = parse_trial(request)
        is_draft = request.WhichOneof("candidate") == "draft_id"
        scope = parse_policy_scope(request.course_id)
        wanted = ShadowRequest(
            scope=scope,
            number=0 if is_draft else parse_number(request.number, field="number", least=1),
            draft_id=parse_id(request.draft_id, field="draft_id") if is_draft else "",
            sample_rate=sample_rate,
            budget_us=budget_us,
            ends_at=parse_time(request, "ends_at", field="ends_at"),
            author=parse_author(request.author) or call.principal.actor,
        )
        await require_policy_edit(call, self.rights, scope)
        return pb.StartPolicyShadowResponse(shadow=shadow_message(await self.shadow_control.start(wanted)))

    async def ReadPolicyShadow(
        self, request: pb.ReadPolicyShadowRequest, call: Call
    ) -> pb.ReadPolicyShadowResponse:
        """Read the last shadow and its results, whose examples name people."""
        scope = parse_policy_scope(request.course_id)
        await require_policy_edit(call, self.rights, scope)
        found = await self.shadow_control.read(scope)
        return pb.ReadPolicyShadowResponse(shadow=None if found is None else shadow_message(found))

    async def StopPolicyShadow(
        self, request: pb.StopPolicyShadowRequest, call: Call
    ) -> pb.StopPolicyShadowResponse:
        """End the shadow on all servers."""
        scope = parse_policy_scope(request.course_id)
        await require_policy_edit(call, self.rights, scope)
        return pb.StopPolicyShadowResponse(shadow=shadow_message(await self.shadow_control.stop(scope)))
