"""AuditService: reads the change log and the decision log, and proves what the change log had."""

from __future__ import annotations

from dataclasses import dataclass

from authz.api.call import Call
from authz.api.grpc.answers import token_message
from authz.api.permissions import require_of_person
from authz.domain.decision_log import DecisionTable
from authz.domain.errors import precondition_failed
from authz.domain.proofs import AuditLog, Checkpoints, Proofs
from authz.engine.consistency import ConsistencyGate
from authz.engine.declared_names import require_declared
from authz.engine.policies import ActiveChecker
from authz.engine.rights import PersonRights
from authz.engine.turns import Turns
from authz.store.log.audit import AuditTrail
from authz.v1 import audit_pb2 as pb
from authz.wire.audit import (
    change_message,
    decision_message,
    parse_audit_log,
    parse_read_changes,
    parse_read_decisions,
)

_PERMISSIONS = {AuditLog.CHANGES: "read_changes", AuditLog.DECISIONS: "read_decisions"}


@dataclass(frozen=True, eq=False, kw_only=True)
class AuditServicer:
    """Reads the change log, its tree, and the decision log in the database.

    Each call needs its permission for the caller, and for the person on whose behalf it is made."""

    service = pb.DESCRIPTOR.services_by_name["AuditService"]

    trail: AuditTrail
    decisions: DecisionTable
    active: ActiveChecker
    gate: ConsistencyGate
    turns: Turns
    proofs: Proofs
    checkpoints: Checkpoints
    rights: PersonRights
    logs_to_database: bool

    async def ReadChanges(self, request: pb.ReadChangesRequest, call: Call) -> pb.ReadChangesResponse:
        """Read a page of the change log."""
        await require_of_person(call, self.rights)
        query, page_request = parse_read_changes(request)
        page = await self.gate.read(self.trail.read_changes, query, page_request)
        if not (page.changes or page_request.token or page.next_token):
            await require_declared(self.active, query, call.consistency, call.deadline)
        return pb.ReadChangesResponse(
            changes=await self.turns.collect(map(change_message, page.changes)),
            next_page_token=page.next_token,
            read_at=token_message(self.gate, page.read_at),
        )

    async def ReadDecisions(self, request: pb.ReadDecisionsRequest, call: Call) -> pb.ReadDecisionsResponse:
        """Read a page of the decision log in the database."""
        await require_of_person(call, self.rights)
        query, page_request = parse_read_decisions(request)
        page = await self.gate.read(self.decisions.read, query, page_request)
        # Calls without a decision are in the log, too: the earlier ones that asked for the same word.
        decided = any(entry.policy_version for entry in page.entries)
        if not (decided or page_request.token or page.next_token):
            await require_declared(self.active, query, call.consistency, call.deadline)
        return pb.ReadDecisionsResponse(
            decisions=await self.turns.collect(map(decision_message, page.entries)),
            next_page_token=page.next_token,
            logs_to_database=self.logs_to_database,
        )

    async def ReadCheckpoint(
        self, _request: pb.ReadCheckpointRequest, call: Call
    ) -> pb.ReadCheckpointResponse:
        """Read the newest checkpoint that a server has signed."""
        await require_of_person(call, self.rights)
        newest = await self.gate.run(self.checkpoints.newest)
        if not newest.note:
            raise precondition_failed(
                "no server has signed a checkpoint; set AUTHZ_CHECKPOINT_KEY_FILE on the servers"
            )
        size = await self.gate.run(self.proofs.size, AuditLog.CHANGES)
        return pb.ReadCheckpointResponse(note=newest.note, signed_size=newest.size, tree_size=size)

    async def ReadInclusionProof(
        self, request: pb.ReadInclusionProofRequest, call: Call
    ) -> pb.ReadInclusionProofResponse:
        """Prove that a signed tree has a leaf."""
        log = parse_audit_log(request.log)
        await self._require_reader(call, log)
        proof = await self.gate.run(self.proofs.inclusion, log, request.number, request.tree_size)
        return pb.ReadInclusionProofResponse(
            leaf_hash=proof.leaf, hashes=proof.hashes, content=proof.content, changes=proof.changes
        )

    async def ReadConsistencyProof(
        self, request: pb.ReadConsistencyProofRequest, call: Call
    ) -> pb.ReadConsistencyProofResponse:
        """Prove that a signed tree begins another."""
        log = parse_audit_log(request.log)
        await self._require_reader(call, log)
        proof = await self.gate.run(self.proofs.consistency, log, request.first_size, request.second_size)
        return pb.ReadConsistencyProofResponse(hashes=proof.hashes)

    async def _require_reader(self, call: Call, log: AuditLog) -> None:
        """Raise `PermissionDeniedError` unless caller and person may read the log that a proof is about."""
        permission = _PERMISSIONS[log]
        call.require(permission)
        await require_of_person(call, self.rights, permission)
