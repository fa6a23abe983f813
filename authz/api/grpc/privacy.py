"""PrivacyService: exports, renames, holds, restricts and erases a subject, and sets retention periods."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from authz.api.call import Call
from authz.api.grpc.answers import token_message
from authz.api.permissions import require_of_person
from authz.domain.erasures import RenameRequest
from authz.domain.errors import PermissionDeniedError, malformed
from authz.domain.ids import Subject, SubjectType
from authz.domain.tokens import ConsistencyToken
from authz.domain.vocabulary import API_TYPE, GRANT_ROLES
from authz.engine.consistency import ConsistencyGate
from authz.engine.erasure import Eraser
from authz.engine.exports import Exporter
from authz.engine.group_commit import GroupCommitter
from authz.engine.rights import PersonRights
from authz.store.privacy.personal_data import PersonalData
from authz.store.privacy.recipients import Recipients
from authz.store.privacy.retention import Retention
from authz.v1 import common_pb2
from authz.v1 import privacy_pb2 as pb
from authz.wire.entities import entity_message
from authz.wire.exports import export_messages
from authz.wire.privacy import (
    certificate_message,
    parse_erasure,
    parse_erasures,
    parse_given_reason,
    parse_period_request,
    period_message,
    restricted_message,
)
from authz.wire.values import parse_subject

_AboutSubject: TypeAlias = (
    pb.HoldSubjectRequest
    | pb.ReleaseHoldRequest
    | pb.ReleaseErasedSubjectRequest
    | pb.RestrictSubjectRequest
    | pb.LiftRestrictionRequest
)
_MAX_NAME_LENGTH = 4096
"""Of the name of a replica, a host name and a path, and of a watcher."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PrivacyServicer:
    """Each call needs its permission for the caller, and for the person on whose behalf it is made."""

    service = pb.DESCRIPTOR.services_by_name["PrivacyService"]

    data: PersonalData
    exporter: Exporter
    eraser: Eraser
    retention: Retention
    committer: GroupCommitter
    gate: ConsistencyGate
    recipients: Recipients
    rights: PersonRights

    async def ExportSubject(
        self,
        request: pb.ExportSubjectRequest,
        call: Call,
        send: Callable[[pb.ExportSubjectResponse], Awaitable[None]],
    ) -> None:
        """Stream everything that the database holds about a subject. People may export their own data."""
        subject = parse_subject(request, "subject", field="subject")
        if call.principal.on_behalf_of != subject:
            await require_of_person(call, self.rights)
        await self.exporter.export(subject, export_messages, send)

    async def EraseSubject(self, request: pb.EraseSubjectRequest, call: Call) -> pb.EraseSubjectResponse:
        """Begin the erasure of a subject; any running server continues it.

        A caller that may not grant roles erases no service: without its account and tokens, a service could
        call nothing. A person ends only roles on the platform below the own rank, and inherits nothing.
        """
        await require_of_person(call, self.rights)
        erasure = parse_erasure(request, call.origin(parse_given_reason(request.reason)))
        _require_other_receiver(call, "resources_to", erasure.resources_to)
        person = call.principal.on_behalf_of
        if erasure.subject != person:  # who ends their own roles gives nobody any
            await self._require_over(erasure.subject, call)
        certificate = await self.eraser.erase(erasure, call.deadline, call.require_permitted)
        return pb.EraseSubjectResponse(certificate=certificate_message(certificate))

    async def ReadErasures(self, request: pb.ReadErasuresRequest, call: Call) -> pb.ReadErasuresResponse:
        """List the certificates of erasures, page by page."""
        await require_of_person(call, self.rights)
        certificates, listing = await self.eraser.certificates(*parse_erasures(request))
        return pb.ReadErasuresResponse(
            certificates=map(certificate_message, certificates),
            next_page_token=listing.next_token,
            database_id=listing.read_at.database_id,
        )

    async def ForgetReplica(self, request: pb.ForgetReplicaRequest, call: Call) -> pb.ForgetReplicaResponse:
        """Remove a machine, whose disk is destroyed, from all certificates."""
        await require_of_person(call, self.rights)
        await self.gate.run(self.data.forget_replica, _parse_name(request.name, "name"))
        return pb.ForgetReplicaResponse()

    async def ForgetWatcher(self, request: pb.ForgetWatcherRequest, call: Call) -> pb.ForgetWatcherResponse:
        """Remove a watcher, which keeps nothing, from all certificates."""
        await require_of_person(call, self.rights)
        await self.gate.run(self.recipients.forget, _parse_name(request.caller, "caller"))
        return pb.ForgetWatcherResponse()

    async def ReleaseErasedSubject(
        self, request: pb.ReleaseErasedSubjectRequest, call: Call
    ) -> pb.ReleaseErasedSubjectResponse:
        """Release the id of an erased subject for somebody new."""
        written_at, _ = await self._write_about(self.data.release, request, call)
        return pb.ReleaseErasedSubjectResponse(written_at=written_at)

    async def RenameSubject(self, request: pb.RenameSubjectRequest, call: Call) -> pb.RenameSubjectResponse:
        """Move all records of a subject to another id, or none.

        A caller that may not grant roles moves none on the platform: the new holder could be the caller. A
        person moves only those below the own rank, and so not the own role, and nothing to the own id.
        """
        await require_of_person(call, self.rights)
        person = call.principal.on_behalf_of
        grants = call.rights.has(GRANT_ROLES) and (
            person is None or await self.rights.has_permission(person, GRANT_ROLES)
        )
        subject = parse_subject(request, "subject", field="subject")
        to = parse_subject(request, "to", field="to")
        _require_other_receiver(call, "to", to)
        if grants:
            # The tokens of a service would give the roles of the other one, too.
            gains = [subject, to] if subject.type is SubjectType.SERVICE else [subject]
            await self.rights.require_rank(person, gains)
        renaming = RenameRequest(
            subject=subject,
            to=to,
            origin=call.origin(parse_given_reason(request.reason)),
            merge=request.merge,
            moves_roles=grants,
        )
        rename = partial(self.data.rename, renaming)
        state, counts = await self.committer.run_batch(rename, call.require_permitted)
        return pb.RenameSubjectResponse(
            written_at=token_message(self.gate, state),
            replicated=await self.gate.wait_until_replicated(state),
            records=(pb.RenamedRecords(kind=kind, count=count) for kind, count in counts.items()),
        )

    async def HoldSubject(self, request: pb.HoldSubjectRequest, call: Call) -> pb.HoldSubjectResponse:
        """Block the erasure of a subject until the hold is released."""
        written_at, _ = await self._write_about(self.data.hold, request, call)
        return pb.HoldSubjectResponse(written_at=written_at)

    async def ReleaseHold(self, request: pb.ReleaseHoldRequest, call: Call) -> pb.ReleaseHoldResponse:
        """End a hold, so that the subject can be erased."""
        written_at, _ = await self._write_about(self.data.release_hold, request, call)
        return pb.ReleaseHoldResponse(written_at=written_at)

    async def ReadHolds(self, _request: pb.ReadHoldsRequest, call: Call) -> pb.ReadHoldsResponse:
        """List all holds."""
        await require_of_person(call, self.rights)
        return pb.ReadHoldsResponse(holds=map(entity_message, await self.gate.run(self.data.holds)))

    async def RestrictSubject(
        self, request: pb.RestrictSubjectRequest, call: Call
    ) -> pb.RestrictSubjectResponse:
        """Take all access from a subject, and keep its data, until the restriction is lifted."""
        restrict = self.data.restrict
        written_at, replicated = await self._write_about(restrict, request, call, self._require_over)
        return pb.RestrictSubjectResponse(written_at=written_at, replicated=replicated)

    async def LiftRestriction(
        self, request: pb.LiftRestrictionRequest, call: Call
    ) -> pb.LiftRestrictionResponse:
        """End a restriction: the records of the subject give access again.

        A role on the platform is given back only by a caller that may grant roles.
        """
        lift = self.data.lift_restriction
        written_at, _ = await self._write_about(lift, request, call, self._require_to_give_back)
        return pb.LiftRestrictionResponse(written_at=written_at)

    async def ReadRestrictions(
        self, _request: pb.ReadRestrictionsRequest, call: Call
    ) -> pb.ReadRestrictionsResponse:
        """List all restrictions."""
        await require_of_person(call, self.rights)
        found = await self.gate.run(self.data.restrictions)
        return pb.ReadRestrictionsResponse(restrictions=map(restricted_message, found))

    async def ReadRetention(self, _request: pb.ReadRetentionRequest, call: Call) -> pb.ReadRetentionResponse:
        """List the retention rules of all data."""
        await require_of_person(call, self.rights)
        return pb.ReadRetentionResponse(
            periods=map(period_message, await self.gate.run(self.retention.rules))
        )

    async def SetRetention(self, request: pb.SetRetentionRequest, call: Call) -> pb.SetRetentionResponse:
        """Set the period of one kind of data on all servers."""
        await require_of_person(call, self.rights)
        wanted = parse_period_request(request, call.origin(parse_given_reason(request.reason)))
        set_period = partial(self.retention.set_period, wanted)
        rule, state = await self.committer.run_batch(set_period, call.require_permitted)
        token = token_message(self.gate, state)
        return pb.SetRetentionResponse(period=period_message(rule), written_at=token)

    async def _require_over(self, subject: Subject, call: Call) -> None:
        """Raise `PermissionDeniedError` unless a call may end what a subject may do: without its account, a
        service could call nothing, and a person ends only roles on the platform below the own rank."""
        if subject.type is SubjectType.SERVICE:
            call.require(GRANT_ROLES)
        await self.rights.require_rank(call.principal.on_behalf_of, [subject])

    async def _require_to_give_back(self, subject: Subject, call: Call) -> None:
        """As `_require_over`, and unless the call may grant the roles on the platform that the subject gets
        back."""
        await self._require_over(subject, call)
        if not call.rights.has(GRANT_ROLES) and await self.rights.has_role_on_platform(subject):
            raise PermissionDeniedError(
                f"{subject} has a role on the platform, so only a caller with `{GRANT_ROLES}` may end what"
                f" takes it away; have one with `{call.method.permission}` and `{GRANT_ROLES}` do so",
                method=call.method.name,
                type=API_TYPE,
                permission=GRANT_ROLES,
            )

    async def _write_about(
        self,
        write: Callable[..., ConsistencyToken],
        request: _AboutSubject,
        call: Call,
        require: Callable[[Subject, Call], Awaitable[None]] | None = None,
    ) -> tuple[common_pb2.ConsistencyToken, bool]:
        """Write something about the subject of a request, for its reason, unless `require` raises. Return the
        token of the state, and whether the replica has it."""
        await require_of_person(call, self.rights)
        subject = parse_subject(request, "subject", field="subject")
        if require is not None:
            await require(subject, call)
        origin = call.origin(parse_given_reason(request.reason))
        state = await self.committer.run_batch(partial(write, subject, origin), call.require_permitted)
        return token_message(self.gate, state), await self.gate.wait_until_replicated(state)


def _parse_name(text: str, field: str) -> str:
    """The name of a replica or a watcher. Raises `InvalidArgumentError` for one that none can have."""
    if not text or len(text) > _MAX_NAME_LENGTH or not text.isprintable():
        raise malformed(field, "is no name that `authz privacy erasures` shows; send one of those")
    return text


def _require_other_receiver(call: Call, field: str, receiver: Subject | None) -> None:
    """Raise `PermissionDeniedError` if the person for whom the call is made would receive the records of
    somebody else. A permission to rename or erase is no permission to read content or to own a course."""
    if receiver is not None and receiver == call.principal.on_behalf_of:
        raise PermissionDeniedError(
            f"{field} is {receiver}, for whom the call is made: nobody may give themselves the records of"
            " another person; name another subject, or ask a colleague",
            permission=call.method.permission,
            method=call.method.name,
        )
