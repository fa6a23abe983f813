"""Memberships with another end, and what has changed of them in words."""

from __future__ import annotations

import msgspec

from authz.domain.entities import Membership, MembershipStatus
from authz.domain.instants import Instant, format_instant
from authz.importers.oneroster.source_ref import parse_source_ref
from authz.importers.report import printable


def ending_at(membership: Membership, ends_at: Instant | None) -> Membership:
    """The membership with this end, and without a start that would be after it."""
    starts_at = membership.starts_at
    if starts_at is not None and ends_at is not None and starts_at >= ends_at:
        starts_at = None
    return msgspec.structs.replace(membership, starts_at=starts_at, ends_at=ends_at)


def described(membership: Membership) -> str:
    """The status and dates of a new membership, as far as they say something."""
    parts = []
    if membership.status is not MembershipStatus.ACTIVE:
        parts.append(f"{membership.status.value}{_cause(membership)}")
    if membership.starts_at is not None:
        parts.append(f"from {format_instant(membership.starts_at)}")
    if membership.ends_at is not None:
        parts.append(f"until {format_instant(membership.ends_at)}")
    return ", ".join(parts)


def difference(before: Membership, after: Membership) -> str:
    """What has changed, field by field."""
    parts = []
    if before.status is not after.status:
        parts.append(f"{before.status.value} -> {after.status.value}{_cause(after)}")
    for name in ("starts_at", "ends_at"):
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            parts.append(f"{name} {_when(old)} -> {_when(new)}")
    if before.source_ref != after.source_ref:
        parts.append(printable(f"source_ref {before.source_ref} -> {after.source_ref}"))
    return ", ".join(parts)


def _cause(membership: Membership) -> str:
    ref = parse_source_ref(membership.source_ref)
    if ref.suspended_by_row:
        return ": the row is at fault"
    return ": the user is deleted, disabled or at fault" if ref.suspended_by_user else ""


def _when(instant: Instant | None) -> str:
    return "none" if instant is None else format_instant(instant)
