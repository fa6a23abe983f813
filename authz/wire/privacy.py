"""Erasures and retention rules between protobuf and the domain."""

from __future__ import annotations

from authz.domain.entities import RetainedData, RetentionRule, Versioned
from authz.domain.erasures import ErasureCertificate, ErasureRequest, ReplicaReport, RestrictedSubject
from authz.domain.errors import malformed
from authz.domain.ids import Subject
from authz.domain.origin import Origin
from authz.domain.ports import Page
from authz.domain.recipients import WatcherReport
from authz.domain.retention import LIMITS, PeriodRequest
from authz.v1 import common_pb2
from authz.v1 import privacy_pb2 as pb
from authz.wire.entities import entity_message, parse_versioned
from authz.wire.filters import parse_page
from authz.wire.forms import Codec, Form
from authz.wire.values import WireEnum, missing, parse_subject
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


CERTIFICATES = Form(
    ErasureCertificate,
    pb.ErasureCertificate,
    removed=Codec(
        lambda counts: [pb.ErasureCount(what=what, count=count) for what, count in counts.items()],
        lambda messages: {each.what: each.count for each in messages},
    ),
    replicas=Form(ReplicaReport, pb.ErasureReplica, names={"is_cleared": "confirmed"}),
    watchers=Form(
        WatcherReport,
        pb.ErasureWatcher,
        names={"was_sent": "sent", "has_acknowledged": "acknowledged"},
    ),
)
RESTRICTED = Form(RestrictedSubject, pb.RestrictedSubject)


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
