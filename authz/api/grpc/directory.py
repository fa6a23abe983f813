"""DirectoryService: Write, Import and the reads of the source of truth."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from authz.api.call import Call
from authz.domain.ports import Directory, Listing
from authz.domain.tokens import ConsistencyToken
from authz.engine.consistency import ConsistencyGate
from authz.engine.write import DirectoryWriter, ImportPart
from authz.v1 import common_pb2
from authz.v1 import directory_pb2 as pb
from authz.wire.entities import entity_message
from authz.wire.filters import page_of, parse_filter
from authz.wire.writes import parse_import, parse_reason, parse_write


class DirectoryServicer:
    """Writes go to the source of truth through one thread; reads come from it in pages."""

    service = pb.DESCRIPTOR.services_by_name["DirectoryService"]

    def __init__(self, directory: Directory, gate: ConsistencyGate, writer: DirectoryWriter) -> None:
        self._directory = directory
        self._gate = gate
        self._writer = writer

    async def Write(self, request: pb.WriteRequest, call: Call) -> pb.WriteResponse:
        """All or none."""
        write = parse_write(request, actor=call.principal.actor, request_id=call.request_id)
        report = await self._writer.write(write)
        return pb.WriteResponse(written_at=self._token(report.state), replicated=report.replicated)

    async def Import(self, requests: AsyncIterator[pb.ImportRequest], call: Call) -> pb.ImportResponse:
        """What can be imported, message by message."""
        report = await self._writer.import_parts(
            _parts(requests), actor=call.principal.actor, request_id=call.request_id
        )
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
            written_at=self._token(report.head),
            replicated=report.replicated,
        )

    async def ReadCourses(self, request: pb.ReadCoursesRequest, call: Call) -> pb.ReadCoursesResponse:
        """A page of courses."""
        listing = await self._list(request, call)
        return pb.ReadCoursesResponse(courses=_messages(listing), **self._tail(listing))

    async def ReadSessions(self, request: pb.ReadSessionsRequest, call: Call) -> pb.ReadSessionsResponse:
        """A page of sessions."""
        listing = await self._list(request, call)
        return pb.ReadSessionsResponse(sessions=_messages(listing), **self._tail(listing))

    async def ReadMemberships(
        self, request: pb.ReadMembershipsRequest, call: Call
    ) -> pb.ReadMembershipsResponse:
        """A page of memberships."""
        listing = await self._list(request, call)
        return pb.ReadMembershipsResponse(memberships=_messages(listing), **self._tail(listing))

    async def ReadResources(self, request: pb.ReadResourcesRequest, call: Call) -> pb.ReadResourcesResponse:
        """A page of resources."""
        listing = await self._list(request, call)
        return pb.ReadResourcesResponse(resources=_messages(listing), **self._tail(listing))

    async def ReadShares(self, request: pb.ReadSharesRequest, call: Call) -> pb.ReadSharesResponse:
        """A page of shares."""
        listing = await self._list(request, call)
        return pb.ReadSharesResponse(shares=_messages(listing), **self._tail(listing))

    async def ReadAccounts(self, request: pb.ReadAccountsRequest, call: Call) -> pb.ReadAccountsResponse:
        """A page of accounts."""
        listing = await self._list(request, call)
        return pb.ReadAccountsResponse(accounts=_messages(listing), **self._tail(listing))

    async def _list(self, request: Any, call: Call) -> Listing[Any]:
        wanted, page = parse_filter(request), page_of(request.page_size, request.page_token)
        await self._gate.wait_until(call.consistency, call.deadline)
        return await self._gate.run(partial(self._directory.read, wanted, page))

    def _tail(self, listing: Listing[Any]) -> dict[str, Any]:
        return {"next_page_token": listing.next_token, "read_at": self._token(listing.read_at)}

    def _token(self, state: ConsistencyToken) -> common_pb2.ConsistencyToken:
        return common_pb2.ConsistencyToken(token=self._gate.token_of(state))


async def _parts(requests: AsyncIterator[pb.ImportRequest]) -> AsyncIterator[ImportPart]:
    """The messages of an import. The first reason holds for the rest of it."""
    reason = ""
    async for request in requests:
        reason = reason or parse_reason(request.reason)
        yield ImportPart(parse_import(request), reason)


def _messages(listing: Listing[Any]) -> list[Any]:
    return [entity_message(versioned) for versioned in listing.items]
