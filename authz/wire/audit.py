"""Audit queries and results, between protobuf and the domain."""

from __future__ import annotations

from typing import Any

from authz.domain.audit import MAX_PRINCIPAL_LENGTH, ChangeQuery, LoggedChange
from authz.domain.decision_log import DecisionQuery, StoredDecision
from authz.domain.entities import Entity, Versioned, kind_of
from authz.domain.errors import malformed
from authz.domain.ids import parse_subject as parse_subject_text
from authz.domain.kinds.fields import validate_text
from authz.domain.mutations import Mutation, Operation
from authz.domain.ports import Page
from authz.domain.proofs import AuditLog
from authz.v1 import audit_pb2 as pb
from authz.wire.decisions import parse_action
from authz.wire.entities import OPERATIONS, entity_message, versioned_in
from authz.wire.filters import QueryForm
from authz.wire.values import WireEnum, duration_message, parse_subject, subject_message, time_message

CHANGE_QUERIES = QueryForm(ChangeQuery, pb.ReadChangesRequest)
DECISION_QUERIES = QueryForm(DecisionQuery, pb.ReadDecisionsRequest)
AUDIT_LOGS = WireEnum(pb.AuditLog.DESCRIPTOR, AuditLog)


def parse_read_changes(request: pb.ReadChangesRequest) -> tuple[ChangeQuery, Page]:
    """Which changes a request asks for, and which page of them. Raises `InvalidArgumentError`."""
    query, page = CHANGE_QUERIES.parse(request)
    _validate(query)
    return query, page


def parse_read_decisions(request: pb.ReadDecisionsRequest) -> tuple[DecisionQuery, Page]:
    """Which entries a request asks for, and which page of them. Raises `InvalidArgumentError`."""
    query, page = DECISION_QUERIES.parse(request)
    _validate(query)
    if query.action:
        parse_action(query.action)
    return query, page


def _validate(query: ChangeQuery | DecisionQuery) -> None:
    validate_text(query.principal, field="principal", max_length=MAX_PRINCIPAL_LENGTH)
    if query.since is not None and query.until is not None and query.since >= query.until:
        raise malformed("until", "is not after `since`; name a later time")


def parse_audit_log(number: int) -> AuditLog:
    """The log that a request names; the change log if it names none. Raises `InvalidArgumentError`."""
    return AUDIT_LOGS.parse(number, field="log", default=AuditLog.CHANGES)


def change_message(change: LoggedChange) -> pb.LoggedChange:
    """A change as a message."""
    return pb.LoggedChange(
        revision=change.revision,
        committed_at=time_message(change.committed_at),
        actor=change.actor,
        reason=change.reason,
        request_id=change.request_id,
        operation=OPERATIONS.number(change.mutation.operation),
        before=_record(change.before, revision=0),
        after=_record(change.after, revision=change.revision),
    )


def _record(entity: Entity | None, *, revision: int) -> pb.Record | None:
    if entity is None:
        return None
    return pb.Record(**{kind_of(entity).name: entity_message(Versioned(entity, revision))})


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
    return versioned_in(getattr(message, name), "record").entity


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
