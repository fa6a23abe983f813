"""Audit queries and results, between protobuf and the domain."""

from __future__ import annotations

from typing import Any

from authz.domain.audit import ChangeQuery, LoggedChange
from authz.domain.decision_log import DecisionQuery, StoredDecision
from authz.domain.entities import Entity, Versioned, kind_of
from authz.domain.errors import malformed
from authz.domain.ids import ResourceRef, parse_id
from authz.domain.ids import parse_subject as parse_subject_text
from authz.domain.mutations import Mutation, Operation
from authz.domain.ports import Page
from authz.domain.proofs import AuditLog
from authz.v1 import audit_pb2 as pb
from authz.wire.changes import ENTITY_KINDS, parse_kinds
from authz.wire.decisions import parse_action
from authz.wire.entities import OPERATIONS, entity_message, parse_versioned
from authz.wire.fields import parse_type
from authz.wire.filters import DEFAULT_PAGE_SIZE
from authz.wire.values import (
    WireEnum,
    duration_message,
    missing,
    parse_scope,
    parse_subject,
    parse_time,
    scope_message,
    subject_message,
    time_message,
)

_MAX_PRINCIPAL_LENGTH = 256
AUDIT_LOGS = WireEnum(pb.AuditLog.DESCRIPTOR, AuditLog)


def parse_read_changes(request: pb.ReadChangesRequest) -> tuple[ChangeQuery, Page]:
    """Which changes a request asks for, and which page of them. Raises `InvalidArgumentError`."""
    query = ChangeQuery(
        kinds=parse_kinds(request.kinds),
        scope=parse_scope(request, "scope", field="scope") if request.HasField("scope") else None,
        **_parse_common(request),
    )
    return query, Page(request.page_size or DEFAULT_PAGE_SIZE, request.page_token)


def parse_read_decisions(request: pb.ReadDecisionsRequest) -> tuple[DecisionQuery, Page]:
    """Which entries a request asks for, and which page of them. Raises `InvalidArgumentError`."""
    query = DecisionQuery(
        action=parse_action(request.action) if request.action else "",
        allowed=request.allowed if request.HasField("allowed") else None,
        **_parse_common(request),
    )
    return query, Page(request.page_size or DEFAULT_PAGE_SIZE, request.page_token)


def parse_audit_log(number: int) -> AuditLog:
    """The log that a request names; the change log if it names none. Raises `InvalidArgumentError`."""
    return AUDIT_LOGS.parse(number, field="log", default=AuditLog.CHANGES)


def _parse_common(request: pb.ReadChangesRequest | pb.ReadDecisionsRequest) -> dict[str, Any]:
    """What both calls filter by."""
    since, until = (parse_time(request, name, field=name) for name in ("since", "until"))
    if since is not None and until is not None and since >= until:
        raise malformed("until", "is not after `since`; name a later time")
    return {
        "subject": parse_subject(request, "subject", field="subject")
        if request.HasField("subject")
        else None,
        "resource": _parse_resource(request),
        "principal": _parse_principal(request.principal),
        "since": since,
        "until": until,
        "oldest_first": request.oldest_first,
    }


def _parse_resource(request: pb.ReadChangesRequest | pb.ReadDecisionsRequest) -> ResourceRef | None:
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
    return pb.ReadChangesRequest(
        kinds=map(ENTITY_KINDS.number, query.kinds),
        scope=None if query.scope is None else scope_message(query.scope),
        **_common(query, page),
    )


def read_decisions_request(query: DecisionQuery, page: Page) -> pb.ReadDecisionsRequest:
    """The request for a page."""
    return pb.ReadDecisionsRequest(action=query.action, allowed=query.allowed, **_common(query, page))


def _common(query: ChangeQuery | DecisionQuery, page: Page) -> dict[str, Any]:
    return {
        "subject": None if query.subject is None else subject_message(query.subject),
        "resource_type": "" if query.resource is None else query.resource.type,
        "resource_id": "" if query.resource is None else query.resource.id,
        "principal": query.principal,
        "since": time_message(query.since),
        "until": time_message(query.until),
        "oldest_first": query.oldest_first,
        "page_size": page.size,
        "page_token": page.token,
    }


def change_message(change: LoggedChange) -> pb.LoggedChange:
    """A change as a message."""
    return pb.LoggedChange(
        revision=change.revision,
        committed_at=time_message(change.committed_at),
        actor=change.actor,
        reason=change.reason,
        request_id=change.request_id,
        operation=OPERATIONS.number(change.mutation.operation),
        before=_record(change.before, version=0),
        after=_record(change.after, version=change.revision),
    )


def _record(entity: Entity | None, *, version: int) -> pb.Record | None:
    if entity is None:
        return None
    return pb.Record(**{kind_of(entity).name: entity_message(Versioned(entity, version))})


def parse_change(message: pb.LoggedChange) -> LoggedChange:
    """The change of a message that this service sent."""
    operation = OPERATIONS.parse(message.operation, field="operation")
    before, target = (_entity(message, name) for name in ("before", "after"))
    if operation is Operation.DELETE:
        before, target = None, before
    return LoggedChange(
        revision=message.revision,
        committed_at=message.committed_at.ToMicroseconds(),
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


_TEXTS = (
    *("decision_id", "method", "code", "caller", "request_id", "action", "course_id", "session_id"),
    *("purpose", "allowed", "reason", "role", "rule", "policy_version", "course_policy_version"),
    *("revision", "leaf"),
)
"""The fields of an entry that are the same in its message."""


def decision_message(entry: StoredDecision) -> pb.LoggedDecision:
    """An entry of the decision log as a message."""
    type_name, _, id_ = entry.resource.partition(":")
    return pb.LoggedDecision(
        **{name: getattr(entry, name) for name in _TEXTS},
        subject=subject_message(parse_subject_text(entry.subject)) if entry.subject else None,
        person=subject_message(parse_subject_text(entry.person)) if entry.person else None,
        resource_type=type_name,
        resource_id=id_,
        duration=duration_message(entry.duration_us),
        at=time_message(entry.at),
    )


def parse_decision(message: pb.LoggedDecision) -> StoredDecision:
    """The entry of a message that this service sent."""
    type_name, id_ = message.resource_type, message.resource_id
    return StoredDecision(
        **{name: getattr(message, name) for name in _TEXTS},
        at=message.at.ToMicroseconds(),
        subject=_subject_text(message, "subject"),
        person=_subject_text(message, "person"),
        resource=f"{type_name}:{id_}" if id_ else type_name,
        duration_us=message.duration.ToMicroseconds(),
    )


def _subject_text(message: pb.LoggedDecision, name: str) -> str:
    return str(parse_subject(message, name, field=name)) if message.HasField(name) else ""  # type: ignore[arg-type]  # one of two
