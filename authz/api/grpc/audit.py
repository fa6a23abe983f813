"""AuditService: what was done."""

from __future__ import annotations

from functools import partial

from authz.api.call import Call
from authz.domain.audit import AuditTrail
from authz.engine.consistency import ConsistencyGate
from authz.engine.turns import Turns
from authz.v1 import audit_pb2 as pb
from authz.v1 import common_pb2
from authz.wire.audit import change_message, parse_read_changes


class AuditServicer:
    """Reads what the database keeps of what was done."""

    service = pb.DESCRIPTOR.services_by_name["AuditService"]

    def __init__(self, trail: AuditTrail, gate: ConsistencyGate, turns: Turns) -> None:
        self._trail = trail
        self._gate = gate
        self._turns = turns

    async def ReadChanges(self, request: pb.ReadChangesRequest, _call: Call) -> pb.ReadChangesResponse:
        """A page of the change log."""
        query, asked = parse_read_changes(request)
        page = await self._gate.read(partial(self._trail.read_changes, query, asked))
        return pb.ReadChangesResponse(
            changes=await self._turns.collect(map(change_message, page.changes)),
            next_page_token=page.next_token,
            read_at=common_pb2.ConsistencyToken(token=self._gate.token_of(page.read_at)),
        )
