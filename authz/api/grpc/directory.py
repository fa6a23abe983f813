"""DirectoryService: Write, Import and the reads of what is held."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

from authz.access.principal import actor_of
from authz.api.grpc.calls import request_id_var
from authz.domain.entities import Entity
from authz.domain.errors import AuthzError, ErrorReason, InvalidArgumentError
from authz.domain.ids import parse_id
from authz.domain.mutations import (
    MAX_MUTATIONS_PER_WRITE,
    MAX_PRECONDITIONS_PER_WRITE,
    ImportFault,
    Mutation,
    WriteRequest,
)
from authz.domain.ports import Directory, Listing, Page
from authz.domain.tokens import ConsistencyToken, encode_consistency_token
from authz.engine.consistency import ConsistencyGate, Context
from authz.engine.group_commit import GroupCommitter
from authz.v1 import common_pb2, directory_pb2_grpc
from authz.v1 import directory_pb2 as pb
from authz.wire.entities import entity_message, parse_mutation, parse_precondition
from authz.wire.filters import (
    course_filter,
    membership_filter,
    page_of,
    resource_filter,
    session_filter,
    share_filter,
)

FilterT = TypeVar("FilterT")
EntityT = TypeVar("EntityT", bound=Entity)
MessageT = TypeVar("MessageT", pb.Mutation, pb.Precondition)
ParsedT = TypeVar("ParsedT")

MAX_REPORTED_FAULTS = 1000
_MAX_REASON_LENGTH = 1024


class DirectoryServicer(directory_pb2_grpc.DirectoryServiceServicer):
    """Writes go to the source of truth through one thread; reads come from it in pages."""

    def __init__(self, directory: Directory, reading: ConsistencyGate, writing: GroupCommitter) -> None:
        self._directory = directory
        self._reading = reading
        self._writing = writing

    async def Write(self, request: pb.WriteRequest, context: Context) -> pb.WriteResponse:
        """All or none."""
        write = _parse_write(request, context)
        state = await self._writing.write(write)
        await self._reading.wait_until_replicated(state)
        return pb.WriteResponse(written_at=_token(state))

    async def Import(
        self, request_iterator: AsyncIterator[pb.ImportRequest], context: Context
    ) -> pb.ImportResponse:
        """A transaction a message, so that memory stays bounded by the size of one."""
        response = pb.ImportResponse()
        position, reason = 0, ""
        head = await self._reading.run(self._directory.head)
        actor, request_id = actor_of(context), request_id_var.get()
        async for request in request_iterator:
            reason = reason or _parse_reason(request.reason)
            if len(request.mutations) > MAX_MUTATIONS_PER_WRITE:
                raise _too_many("mutations", len(request.mutations), MAX_MUTATIONS_PER_WRITE)
            for batch, offset in _runs(request.mutations, position, response):
                result = await self._writing.import_batch(
                    partial(
                        self._directory.import_batch,
                        batch,
                        offset=offset,
                        actor=actor,
                        request_id=request_id,
                        reason=reason,
                    )
                )
                response.written += result.written
                response.unchanged += result.unchanged
                head = result.head
                for fault in result.faults:
                    _report(response, fault)
            position += len(request.mutations)
        await self._reading.wait_until_replicated(head)
        response.written_at.CopyFrom(_token(head))
        return response

    async def ReadCourses(self, request: pb.ReadCoursesRequest, context: Context) -> pb.ReadCoursesResponse:
        """A page of courses."""
        listing = await self._list(self._directory.courses, course_filter(request), request, context)
        return pb.ReadCoursesResponse(courses=_messages(listing), **_tail(listing))

    async def ReadSessions(
        self, request: pb.ReadSessionsRequest, context: Context
    ) -> pb.ReadSessionsResponse:
        """A page of sessions."""
        listing = await self._list(self._directory.sessions, session_filter(request), request, context)
        return pb.ReadSessionsResponse(sessions=_messages(listing), **_tail(listing))

    async def ReadMemberships(
        self, request: pb.ReadMembershipsRequest, context: Context
    ) -> pb.ReadMembershipsResponse:
        """A page of memberships."""
        listing = await self._list(self._directory.memberships, membership_filter(request), request, context)
        return pb.ReadMembershipsResponse(memberships=_messages(listing), **_tail(listing))

    async def ReadResources(
        self, request: pb.ReadResourcesRequest, context: Context
    ) -> pb.ReadResourcesResponse:
        """A page of resources."""
        listing = await self._list(self._directory.resources, resource_filter(request), request, context)
        return pb.ReadResourcesResponse(resources=_messages(listing), **_tail(listing))

    async def ReadShares(self, request: pb.ReadSharesRequest, context: Context) -> pb.ReadSharesResponse:
        """A page of shares."""
        listing = await self._list(self._directory.shares, share_filter(request), request, context)
        return pb.ReadSharesResponse(shares=_messages(listing), **_tail(listing))

    async def _list(
        self,
        call: Callable[[FilterT, Page], Listing[EntityT]],
        wanted: FilterT,
        request: Any,
        context: Context,
    ) -> Listing[EntityT]:
        page = page_of(request.page_size, request.page_token)
        await self._reading.wait_until(request.consistency, context)
        return await self._reading.run(partial(call, wanted, page))


def _tail(listing: Listing[Any]) -> dict[str, Any]:
    return {"next_page_token": listing.next_token, "read_at": _token(listing.read_at)}


def _token(state: ConsistencyToken) -> common_pb2.ConsistencyToken:
    return common_pb2.ConsistencyToken(token=encode_consistency_token(state))


def _messages(listing: Listing[Any]) -> list[Any]:
    return [entity_message(versioned) for versioned in listing.items]


def _parse_write(request: pb.WriteRequest, context: Context) -> WriteRequest:
    if len(request.mutations) > MAX_MUTATIONS_PER_WRITE:
        raise _too_many("mutations", len(request.mutations), MAX_MUTATIONS_PER_WRITE)
    if len(request.preconditions) > MAX_PRECONDITIONS_PER_WRITE:
        raise _too_many("preconditions", len(request.preconditions), MAX_PRECONDITIONS_PER_WRITE)
    key = request.idempotency_key
    return WriteRequest(
        mutations=tuple(_parse_each("mutations", request.mutations, parse_mutation)),
        preconditions=tuple(_parse_each("preconditions", request.preconditions, parse_precondition)),
        idempotency_key=parse_id(key, field="idempotency_key") if key else "",
        reason=_parse_reason(request.reason),
        actor=actor_of(context),
        request_id=request_id_var.get(),
    )


def _parse_each(
    field: str, messages: Iterable[MessageT], parse: Callable[[MessageT], ParsedT]
) -> Iterator[ParsedT]:
    for place, message in enumerate(messages):
        try:
            yield parse(message)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(
                error.reason,
                f"{field}[{place}]: {error.message}",
                **(error.metadata | {"position": str(place)}),
            ) from None


def _runs(messages: Any, start: int, response: pb.ImportResponse) -> list[tuple[list[Mutation], int]]:
    """Stretches of well-formed mutations with the position of their first; reports the others."""
    runs: list[tuple[list[Mutation], int]] = []
    whole = True
    for position, message in enumerate(messages, start):
        try:
            mutation = parse_mutation(message)
        except AuthzError as error:
            _report(response, ImportFault(position, error.reason.value, error.message))
            whole = True
            continue
        if whole:
            runs.append(([], position))
            whole = False
        runs[-1][0].append(mutation)
    return runs


def _report(response: pb.ImportResponse, fault: ImportFault) -> None:
    response.failed += 1
    if len(response.errors) < MAX_REPORTED_FAULTS:
        response.errors.add(position=fault.position, reason=fault.reason, message=fault.message)
    else:
        response.errors_truncated = True


def _parse_reason(text: str) -> str:
    if len(text) > _MAX_REASON_LENGTH or not text.isprintable():
        raise InvalidArgumentError(
            ErrorReason.MALFORMED_FIELD,
            f"reason has {len(text)} characters; at most {_MAX_REASON_LENGTH} printable ones are kept",
            field="reason",
        )
    return text


def _too_many(field: str, count: int, limit: int) -> InvalidArgumentError:
    return InvalidArgumentError(
        ErrorReason.TOO_MANY_ITEMS,
        f"{field} has {count} items; send at most {limit}",
        field=field,
        limit=str(limit),
    )
