"""What was done, between protobuf and the domain."""

from __future__ import annotations

from typing import Any

from authz.domain.audit import ChangeQuery, LoggedChange
from authz.domain.entities import Entity, Versioned, kind_of
from authz.domain.errors import malformed
from authz.domain.ids import ResourceRef, parse_id
from authz.domain.mutations import Mutation, Operation
from authz.domain.ports import Page
from authz.v1 import audit_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.wire.changes import kind_number, parse_kinds
from authz.wire.entities import OPERATIONS, entity_message, parse_versioned
from authz.wire.fields import parse_type
from authz.wire.filters import DEFAULT_PAGE_SIZE
from authz.wire.values import (
    missing,
    parse_enum,
    parse_scope,
    parse_subject,
    parse_time,
    scope_message,
    set_time,
    subject_message,
    time_of,
)

_MAX_PRINCIPAL_LENGTH = 256


def parse_read_changes(request: pb.ReadChangesRequest) -> tuple[ChangeQuery, Page]:
    """Which changes a request asks for, and which page of them. Raises `InvalidArgumentError`."""
    query = ChangeQuery(
        kinds=parse_kinds(request.kinds),
        subject=parse_subject(request, "subject", field="subject") if request.HasField("subject") else None,
        resource=_parse_resource(request),
        scope=parse_scope(request, "scope", field="scope") if request.HasField("scope") else None,
        principal=_parse_principal(request.principal),
        since=parse_time(request, "since", field="since"),
        until=parse_time(request, "until", field="until"),
        oldest_first=request.oldest_first,
    )
    if query.since is not None and query.until is not None and query.since >= query.until:
        raise malformed("until", "is not after `since`; name a later time")
    return query, Page(request.page_size or DEFAULT_PAGE_SIZE, request.page_token)


def _parse_resource(request: pb.ReadChangesRequest) -> ResourceRef | None:
    if not request.resource_type and not request.resource_id:
        return None
    for name in ("resource_type", "resource_id"):
        if not getattr(request, name):
            raise missing(name)
    type_name = parse_type(request.resource_type, field="resource_type")
    return ResourceRef(type_name, parse_id(request.resource_id, field="resource_id"))


def _parse_principal(text: str) -> str:
    if len(text) > _MAX_PRINCIPAL_LENGTH:
        raise malformed("principal", f"has {len(text)} characters; at most {_MAX_PRINCIPAL_LENGTH} are read")
    return text


def read_changes_request(query: ChangeQuery, page: Page) -> pb.ReadChangesRequest:
    """The request for a page."""
    request = pb.ReadChangesRequest(
        kinds=map(kind_number, query.kinds),
        subject=None if query.subject is None else subject_message(query.subject),
        scope=None if query.scope is None else scope_message(query.scope),
        principal=query.principal,
        oldest_first=query.oldest_first,
        page_size=page.size,
        page_token=page.token,
    )
    if query.resource is not None:
        request.resource_type, request.resource_id = query.resource.type, query.resource.id
    set_time(request.since, query.since)
    set_time(request.until, query.until)
    return request


def change_message(change: LoggedChange) -> pb.LoggedChange:
    """A change as a message."""
    message = pb.LoggedChange(
        revision=change.revision,
        actor=change.actor,
        reason=change.reason,
        request_id=change.request_id,
        operation=dpb.Operation.Value(f"OPERATION_{change.mutation.operation}"),
        before=_record(change.before, version=0),
        after=_record(change.after, version=change.revision),
    )
    set_time(message.committed_at, change.committed_at)
    return message


def _record(entity: Entity | None, *, version: int) -> pb.Record | None:
    if entity is None:
        return None
    return pb.Record(**{kind_of(entity).name: entity_message(Versioned(entity, version))})


def parse_change(message: pb.LoggedChange) -> LoggedChange:
    """The change of a message that this service sent."""
    operation = parse_enum(Operation, OPERATIONS, message.operation, field="operation")
    before, target = (_entity(message, name) for name in ("before", "after"))
    if operation is Operation.DELETE:
        before, target = None, before
    return LoggedChange(
        revision=message.revision,
        committed_at=time_of(message.committed_at),
        actor=message.actor,
        reason=message.reason,
        request_id=message.request_id,
        mutation=Mutation(operation, target, before=before),
    )


def _entity(message: pb.LoggedChange, name: str) -> Any:
    if not message.HasField(name):  # type: ignore[arg-type]  # one of two
        return None
    record = getattr(message, name)
    return parse_versioned(getattr(record, record.WhichOneof("record"))).entity
