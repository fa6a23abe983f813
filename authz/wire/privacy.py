"""Erasures and retention rules between protobuf and the domain."""

from __future__ import annotations

from authz.domain.entities import Erasure, RetainedData, RetentionRule, Versioned
from authz.domain.erasures import ErasureCertificate, ErasureRequest, ReplicaReport, RestrictedSubject
from authz.domain.errors import malformed
from authz.domain.ids import Subject
from authz.domain.origin import Origin
from authz.domain.ports import Page
from authz.domain.recipients import AskerReport, WatcherReport
from authz.domain.retention import LIMITS, PeriodRequest
from authz.v1 import common_pb2
from authz.v1 import privacy_pb2 as pb
from authz.wire.entities import entity_message, parse_versioned
from authz.wire.filters import parse_page
from authz.wire.values import WireEnum, missing, parse_subject, parse_time, time_message
from authz.wire.writes import parse_reason

_DATA = WireEnum(common_pb2.RetainedData.DESCRIPTOR, RetainedData)


def parse_erasure(request: pb.EraseSubjectRequest, origin: Origin) -> ErasureRequest:
    """Whom to erase."""
    new_owner: Subject | None = None
    if request.HasField("resources_to"):
        new_owner = parse_subject(request, "resources_to", field="resources_to")
    return ErasureRequest(
        subject=parse_subject(request, "subject", field="subject"),
        origin=origin,
        resources_to=new_owner,
        orphans=request.orphan_resources,
    )


def parse_given_reason(text: str) -> str:
    """A reason that must be given."""
    if not text:
        raise missing("reason")
    return parse_reason(text)


def parse_erasures(request: pb.ReadErasuresRequest) -> tuple[Subject | None, Page]:
    """Of whom to list the erasures, and which page."""
    subject = parse_subject(request, "subject", field="subject") if request.HasField("subject") else None
    return subject, parse_page(request)


def restricted_message(found: RestrictedSubject) -> pb.RestrictedSubject:
    """A restriction with its reason as a message."""
    return pb.RestrictedSubject(
        restriction=entity_message(found.restriction), reason=found.reason, actor=found.actor
    )


def restricted_of(message: pb.RestrictedSubject) -> RestrictedSubject:
    """A restriction with its reason from its message."""
    return RestrictedSubject(parse_versioned(message.restriction), message.reason, message.actor)


def certificate_message(certificate: ErasureCertificate) -> pb.ErasureCertificate:
    """A certificate as a message."""
    return pb.ErasureCertificate(
        erasure=entity_message(Versioned(certificate.erasure, 0)),
        actor=certificate.actor,
        finished_at=time_message(certificate.finished_at),
        removed=(pb.ErasureCount(what=what, count=n) for what, n in certificate.removed.items()),
        kept=certificate.kept,
        left_to_operator=certificate.left_to_operator,
        replicas=(
            pb.ErasureReplica(name=each.name, confirmed=each.is_cleared, seen_at=time_message(each.seen_at))
            for each in certificate.replicas
        ),
        askers=(
            pb.ErasureAsker(
                caller=each.caller,
                asked=each.asked,
                first_at=time_message(each.first_at),
                last_at=time_message(each.last_at),
            )
            for each in certificate.askers
        ),
        watchers=(
            pb.ErasureWatcher(
                caller=each.caller,
                sent=each.was_sent,
                acknowledged=each.has_acknowledged,
                seen_at=time_message(each.seen_at),
            )
            for each in certificate.watchers
        ),
    )


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
            ReplicaReport(each.name, each.confirmed, each.seen_at.ToMicroseconds())
            for each in message.replicas
        ),
        askers=tuple(
            AskerReport(
                each.caller, each.asked, each.first_at.ToMicroseconds(), each.last_at.ToMicroseconds()
            )
            for each in message.askers
        ),
        watchers=tuple(
            WatcherReport(each.caller, each.sent, each.acknowledged, each.seen_at.ToMicroseconds())
            for each in message.watchers
        ),
    )


def parse_period_request(request: pb.SetRetentionRequest, origin: Origin) -> PeriodRequest:
    """The period to set."""
    period = request.WhichOneof("period")
    if period is None:
        raise missing("days")
    if period == "for_ever" and not request.for_ever:
        raise malformed("for_ever", "is false; set it to true, or set days")
    return PeriodRequest(
        data=_DATA.parse(request.data, field="data"),
        days=request.days if period == "days" else None,
        origin=origin,
        revision=request.revision if request.HasField("revision") else None,
    )


def period_request_message(
    data: RetainedData, days: int | None, *, reason: str, revision: int | None
) -> pb.SetRetentionRequest:
    """A request that sets a period; None is forever."""
    request = pb.SetRetentionRequest(data=_DATA.number(data), reason=reason, revision=revision)
    if days is None:
        request.for_ever = True
    else:
        request.days = days
    return request


def period_message(rule: Versioned[RetentionRule]) -> pb.RetentionPeriod:
    """A rule with its limits as a message."""
    limits = LIMITS[rule.entity.data]
    return pb.RetentionPeriod(
        rule=entity_message(rule),
        min_days=limits.min_days,
        may_be_kept_for_ever=limits.may_be_kept_for_ever,
        why=limits.why,
    )


def parse_period(message: pb.RetentionPeriod) -> Versioned[RetentionRule]:
    """A rule that this service sent."""
    return parse_versioned(message.rule)
