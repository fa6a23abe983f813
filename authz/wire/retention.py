"""Retention rules between protobuf and the domain."""

from __future__ import annotations

from authz.domain.entities import RetainedData, RetentionRule, Versioned
from authz.domain.errors import malformed
from authz.domain.retention import LIMITS, PeriodRequest
from authz.v1 import common_pb2
from authz.v1 import privacy_pb2 as pb
from authz.wire.entities import entity_message, parse_versioned
from authz.wire.erasures import parse_given_reason
from authz.wire.values import WireEnum, missing

_DATA = WireEnum(common_pb2.RetainedData.DESCRIPTOR, RetainedData)


def parse_period_request(request: pb.SetRetentionRequest, *, actor: str, request_id: str) -> PeriodRequest:
    """The period to set."""
    period = request.WhichOneof("period")
    if period is None:
        raise missing("days")
    if period == "for_ever" and not request.for_ever:
        raise malformed("for_ever", "is false; set it to true, or set days")
    return PeriodRequest(
        data=_DATA.parse(request.data, field="data"),
        days=request.days if period == "days" else None,
        reason=parse_given_reason(request.reason),
        version=request.version if request.HasField("version") else None,
        actor=actor,
        request_id=request_id,
    )


def period_request_message(
    data: RetainedData, days: int | None, *, reason: str, version: int | None
) -> pb.SetRetentionRequest:
    """A request that sets a period; None is forever."""
    request = pb.SetRetentionRequest(data=_DATA.number(data), reason=reason, version=version)
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
