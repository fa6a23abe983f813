"""PlanResources: a condition that selects what a subject may act upon, on one snapshot."""

from __future__ import annotations

import msgspec

from authz.api.call import Call
from authz.engine.clock import DecisionClock
from authz.engine.lists import types_to_list
from authz.engine.plan import Planner
from authz.engine.policies import ActiveChecker
from authz.engine.turns import Turns
from authz.v1 import authorization_pb2 as pb
from authz.v1 import common_pb2
from authz.wire.decisions import set_valid_until
from authz.wire.plan import PLAN_KINDS, group_message, parse_plan_resources


class Plans:
    """The call of `AuthorizationService` that answers with a plan."""

    def __init__(self, active: ActiveChecker, turns: Turns, clock: DecisionClock) -> None:
        self._active = active
        self._turns = turns
        self._clock = clock

    async def plan_resources(self, request: pb.PlanResourcesRequest, call: Call) -> pb.PlanResourcesResponse:
        """What the subject may act upon, as a condition."""
        query = parse_plan_resources(request)
        snapshot, checker = await self._active.get(call.consistency, call.deadline)
        types = types_to_list(checker.policy.vocabulary, query.action, query.types)
        query = msgspec.structs.replace(query, types=types)
        planner = Planner(checker, snapshot, self._clock.at(snapshot.state.committed_at), query)
        await self._turns.collect(planner)
        response = pb.PlanResourcesResponse(
            kind=PLAN_KINDS.number(planner.kind),
            groups=map(group_message, planner.groups),
            checked_at=common_pb2.ConsistencyToken(token=snapshot.token),
            policy_version=checker.version,
        )
        set_valid_until(response, planner.valid_until)
        return response
