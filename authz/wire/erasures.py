"""Erasures and holds between protobuf and the domain."""

from __future__ import annotations

from authz.domain.entities import Erasure, Versioned
from authz.domain.erasures import ErasureCertificate, ErasureRequest, Hold, ReplicaReport
from authz.domain.ids import Subject
from authz.domain.ports import Page
from authz.domain.recipients import Asker, WatcherReport
from authz.v1 import privacy_pb2 as pb
from authz.wire.entities import entity_message, parse_versioned
from authz.wire.filters import DEFAULT_PAGE_SIZE
from authz.wire.values import missing, parse_subject, parse_time, set_time, subject_message, time_of
from authz.wire.writes import parse_reason


def parse_erasure(request: pb.EraseSubjectRequest, *, actor: str, request_id: str) -> ErasureRequest:
    """Whom to erase."""
    heir: Subject | None = None
    if request.HasField("resources_to"):
        heir = parse_subject(request, "resources_to", field="resources_to")
    return ErasureRequest(
        subject=parse_subject(request, "subject", field="subject"),
        reason=parse_given_reason(request.reason),
        resources_to=heir,
        orphans=request.orphan_resources,
        actor=actor,
        request_id=request_id,
    )


def parse_given_reason(text: str) -> str:
    """A reason that must be given."""
    if not text:
        raise missing("reason")
    return parse_reason(text)


def parse_erasures(request: pb.ReadErasuresRequest) -> tuple[Subject | None, Page]:
    """Of whom to list the erasures, and which page."""
    subject = parse_subject(request, "subject", field="subject") if request.HasField("subject") else None
    return subject, Page(request.page_size or DEFAULT_PAGE_SIZE, request.page_token)


def certificate_message(certificate: ErasureCertificate) -> pb.ErasureCertificate:
    """A certificate as a message."""
    message = pb.ErasureCertificate(
        erasure=entity_message(Versioned(certificate.erasure, 0)),
        actor=certificate.actor,
        removed=(pb.ErasureCount(what=what, count=n) for what, n in certificate.removed.items()),
        kept=certificate.kept,
        left_to_operator=certificate.left_to_operator,
        replicas=map(_replica_message, certificate.replicas),
        askers=map(_asker_message, certificate.askers),
        watchers=map(_watcher_message, certificate.watchers),
    )
    set_time(message.finished_at, certificate.finished_at)
    return message


def _replica_message(replica: ReplicaReport) -> pb.ErasureReplica:
    message = pb.ErasureReplica(name=replica.name, confirmed=replica.is_cleared)
    set_time(message.seen_at, replica.seen_at)
    return message


def _asker_message(asker: Asker) -> pb.ErasureAsker:
    message = pb.ErasureAsker(caller=asker.caller, asked=asker.asked)
    set_time(message.first_at, asker.first_at)
    set_time(message.last_at, asker.last_at)
    return message


def _watcher_message(watcher: WatcherReport) -> pb.ErasureWatcher:
    message = pb.ErasureWatcher(
        caller=watcher.caller, sent=watcher.was_sent, acknowledged=watcher.has_acknowledged
    )
    set_time(message.seen_at, watcher.seen_at)
    return message


def parse_certificate(message: pb.ErasureCertificate) -> ErasureCertificate:
    """A certificate that this service sent."""
    erasure: Erasure = parse_versioned(message.erasure).entity
    return ErasureCertificate(
        erasure=erasure,
        actor=message.actor,
        finished_at=parse_time(message, "finished_at", field="finished_at"),
        removed={each.what: each.count for each in message.removed},
        kept=tuple(message.kept),
        left_to_operator=tuple(message.left_to_operator),
        replicas=tuple(
            ReplicaReport(each.name, each.confirmed, time_of(each.seen_at)) for each in message.replicas
        ),
        askers=tuple(
            Asker(each.caller, each.asked, time_of(each.first_at), time_of(each.last_at))
            for each in message.askers
        ),
        watchers=tuple(
            WatcherReport(each.caller, each.sent, each.acknowledged, time_of(each.seen_at))
            for each in message.watchers
        ),
    )


def hold_message(hold: Hold) -> pb.Hold:
    """A hold as a message."""
    message = pb.Hold(subject=subject_message(hold.subject), reason=hold.reason, actor=hold.actor)
    set_time(message.since, hold.since)
    return message


def parse_hold(message: pb.Hold) -> Hold:
    """A hold that this service sent."""
    subject = parse_subject(message, "subject", field="subject")
    return Hold(subject, message.reason, message.actor, time_of(message.since))
