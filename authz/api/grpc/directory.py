"""DirectoryService: Write, Import and the reads of the source of truth."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import msgspec

from authz.api.call import Call
from authz.api.grpc.answers import token_message
from authz.api.permissions import require_to_write
from authz.domain.entities import Key
from authz.domain.errors import PermissionDeniedError
from authz.domain.mutations import Mutation, Operation, WriteRequest
from authz.domain.vocabulary import GRANT_ROLES
from authz.engine.clock import DecisionClock
from authz.engine.consistency import ConsistencyGate
from authz.engine.declared_names import require_declared
from authz.engine.policies import ActiveChecker
from authz.engine.rights import PersonRights
from authz.engine.turns import Turns
from authz.engine.write import DirectoryWriter, ImportPart, ImportReport, WriteReport
from authz.store.directory import SqlDirectory
from authz.v1 import directory_pb2 as pb
from authz.wire.entities import entity_message
from authz.wire.filters import READ_CALLS_BY_REQUEST
from authz.wire.writes import (
    parse_import,
    parse_member,
    parse_mutations,
    parse_preconditions,
    parse_reason,
    write_of,
)


@dataclass(frozen=True, eq=False, kw_only=True)
class DirectoryServicer:
    """Writes go to the source of truth through one thread; reads come from it in pages."""

    service = pb.DESCRIPTOR.services_by_name["DirectoryService"]

    directory: SqlDirectory
    active: ActiveChecker
    gate: ConsistencyGate
    clock: DecisionClock
    turns: Turns
    writer: DirectoryWriter
    rights: PersonRights

    async def Write(self, request: pb.WriteRequest, call: Call) -> pb.WriteResponse:
        """Apply all mutations in one revision, or none."""
        mutations = await self.turns.collect(parse_mutations(request))
        preconditions = await self.turns.collect(parse_preconditions(request))
        # A precondition tells whether a record exists.
        _require_right(call, mutations, (each.key for each in preconditions))
        origin = call.origin(parse_reason(request.reason))
        write = write_of(request, mutations, preconditions, origin)
        write = msgspec.structs.replace(write, gives_roles_back=call.rights.has(GRANT_ROLES))
        report = await self._written(write, call)
        return pb.WriteResponse(
            written_at=token_message(self.gate, report.state),
            replicated=report.replicated,
            revision=report.state.revision,
        )

    async def _written(self, write: WriteRequest, call: Call) -> WriteReport:
        person = call.principal.on_behalf_of
        if person is None:
            return await self.writer.write(write, call.require_permitted)
        try:
            permitted = await self.rights.require_records(person, write.mutations)
            call.person_requirements.append(partial(self.rights.require_records, person, write.mutations))
            permitted_write = msgspec.structs.replace(write, mutations=permitted)
            return await self.writer.write(permitted_write, call.require_permitted)
        except PermissionDeniedError:
            # A write may take away the right to it: who repeats a deletion must hear that it is done, also if
            # the first one was done while the repetition waited.
            report = await self.writer.repeated(write)
            if report is None:
                raise
            return report

    async def Import(self, requests: AsyncIterator[pb.ImportRequest], call: Call) -> pb.ImportResponse:
        """Apply the valid mutations, message by message, and report the invalid ones."""
        call.rights.require_any("write_", call.method.name)
        report = ImportReport()
        call.failure_details.append(report.add_to)
        try:
            result = await self.writer.import_parts(self._parts(requests, call), report)
        finally:
            if report.refusal and not call.refusal:
                call.refusal.append(PermissionDeniedError(report.refusal, permission=GRANT_ROLES))
        faults = (
            pb.ImportError(position=fault.position, reason=fault.reason, message=fault.message)
            for fault in report.faults
        )
        return pb.ImportResponse(
            written=report.written,
            unchanged=report.unchanged,
            failed=report.failed,
            errors=faults,
            errors_truncated=report.failed > len(report.faults),
            written_at=token_message(self.gate, result.state),
            replicated=result.replicated,
        )

    async def RemoveMember(self, request: pb.RemoveMemberRequest, call: Call) -> pb.RemoveMemberResponse:
        """Remove the memberships and shares of a subject in a course or a session."""
        subject, scope = parse_member(request)
        person = call.principal.on_behalf_of
        await call.require_throughout(partial(self.rights.require_removal, person, subject, scope))
        origin = call.origin(parse_reason(request.reason))
        report = await self.writer.remove_member(subject, scope, origin, call.require_permitted)
        return pb.RemoveMemberResponse(
            written_at=token_message(self.gate, report.state), replicated=report.replicated
        )

    async def _read(self, request: Any, call: Call) -> Any:
        """Read a page of records of a kind."""
        read = READ_CALLS_BY_REQUEST[type(request)]
        wanted, page = read.parse(request)
        await self.gate.wait_until(call.consistency, call.deadline)
        listing = await self.gate.read(self.directory.read, wanted, page)
        if not (listing.items or page.token or listing.next_token):
            await require_declared(self.active, wanted, call.consistency, call.deadline)
        records = await self.turns.collect(map(entity_message, listing.items))
        return read.response(
            records,
            next_page_token=listing.next_token,
            read_at=token_message(self.gate, listing.read_at),
            now=self.clock.at(listing.read_at.committed_at),
        )

    ReadCourses = ReadSessions = ReadMemberships = ReadResources = ReadShares = ReadAccounts = (
        ReadAccessTokens
    ) = _read

    async def _parts(
        self, requests: AsyncIterator[pb.ImportRequest], call: Call
    ) -> AsyncIterator[ImportPart]:
        """The messages of an import. The first reason holds for the rest of it."""
        reason = ""
        async for request in requests:
            reason = reason or parse_reason(request.reason)
            mutations = await self.turns.collect(parse_import(request))
            _require_right(call, (each for each in mutations if isinstance(each, Mutation)))
            permitted = await self.rights.permitted(call.principal.on_behalf_of, mutations)
            if not call.refusal:
                call.refusal.extend(islice((e for e in permitted if isinstance(e, PermissionDeniedError)), 1))
            yield ImportPart(permitted, call.origin(reason), call.rights.has(GRANT_ROLES))


def _require_right(call: Call, mutations: Iterable[Mutation], keys: Iterable[Key] = ()) -> None:
    """Raise `PermissionDeniedError` unless the caller may make all mutations, and know of every record with
    one of these keys, as who deletes it must."""
    written, deleted = list[Key](), [*keys]
    for each in mutations:
        (deleted if each.operation is Operation.DELETE else written).append(each.key)
    require_to_write(call, written, deleted)
