"""Plans on the client: a condition that selects what a subject may act upon."""

from __future__ import annotations

import datetime as dt

import msgspec

from authz.domain.decisions import Reason
from authz.domain.lists import PlanGroup, PlanKind
from authz.v1 import authorization_pb2 as pb
from authz.wire.decisions import REASONS
from authz.wire.lists import PLAN_KINDS, parse_group
from authz.wire.values import time_in


class ResourcePlan(msgspec.Struct, frozen=True, kw_only=True):
    """Which resources of a type a subject may act upon: all, none, or those of `groups`.

    Exact for the state `checked_at` until `valid_until`, None if time alone never changes it. `reason` says
    why none, if that follows from the request alone, as for a scope that does not exist, and the caller may
    learn reasons.
    """

    type: str
    kind: PlanKind
    groups: tuple[PlanGroup, ...]
    checked_at: str
    policy_version: str
    valid_until: dt.datetime | None
    reason: Reason | str | None = None


def plan_of(message: pb.PlanResourcesResponse, type_name: str) -> ResourcePlan:
    """The plan of a message. Raises `InvalidArgumentError` for one that this release cannot read."""
    return ResourcePlan(
        type=type_name,
        kind=PLAN_KINDS.parse(message.kind, field="kind"),
        groups=tuple(map(parse_group, message.groups)),
        checked_at=message.checked_at.token,
        policy_version=message.policy_version,
        valid_until=time_in(message, "valid_until"),
        reason=REASONS.received(message.reason) if message.reason else None,
    )
