"""Retention periods: their defaults and limits, and what the service requires of a store that keeps them."""

from __future__ import annotations

import msgspec

from authz.domain.entities import RetainedData, RetentionRule
from authz.domain.errors import malformed
from authz.domain.instants import DAY_US, Instant
from authz.domain.origin import Origin
from authz.domain.tokens import ConsistencyToken

MAX_DAYS = 36_500
PURGE_INTERVAL_US = DAY_US
"""How late a purge may be, so that a database with steady changes is not purged row by row."""


class RetentionLimits(msgspec.Struct, frozen=True):
    """What periods some data may have, and the one that it has until somebody sets one; None forever."""

    default_days: int | None
    min_days: int
    may_be_kept_for_ever: bool
    why: str


LIMITS = {
    RetainedData.CHANGES: RetentionLimits(
        1_095, 90, True, "an audit of a term needs the log of the whole term"
    ),
    RetainedData.MEMBERSHIPS: RetentionLimits(
        1_095, 30, True, "a person may dispute an end, and get the membership back as it was"
    ),
    RetainedData.DECISIONS: RetentionLimits(
        365, 30, True, "a breach must be reported with whose data was read; schools keep disclosures longer"
    ),
    RetainedData.IDEMPOTENCY_KEYS: RetentionLimits(
        7, 1, False, "a client may repeat a write for a day after its answer was lost"
    ),
    RetainedData.TOMBSTONES: RetentionLimits(
        1_095, 90, True, "a service that restores an old backup may still describe resources deleted since"
    ),
}
"""Also documented in docs/privacy.md."""


class PeriodRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The period to set: `days`, None forever. With `revision`, only if the rule is at that revision."""

    data: RetainedData
    days: int | None
    origin: Origin
    revision: int | None = None


class Purged(msgspec.Struct, frozen=True):
    """What one step of a purge removed, and the state after it. Without `data`, nothing was due."""

    data: RetainedData | None
    removed: int
    state: ConsistencyToken


def require_allowed(data: RetainedData, days: int | None) -> None:
    """Raise `InvalidArgumentError` for a period outside the limits of the data."""
    limits, name = LIMITS[data], data.lower()
    if days is None:
        if not limits.may_be_kept_for_ever:
            raise malformed(
                "for_ever", f"is not possible for {name}, which name callers; set a period in days"
            )
        return
    if days < limits.min_days:
        raise malformed(
            "days", f"is {days}; keep {name} for at least {limits.min_days} days, because {limits.why}"
        )
    if days > MAX_DAYS:
        raise malformed("days", f"is {days}; set at most {MAX_DAYS}, or keep {name} forever")


def default_rule(data: RetainedData) -> RetentionRule:
    """The rule of data for which nobody has set one."""
    return RetentionRule(data, LIMITS[data].default_days)


def kept_since(rule: RetentionRule, now: Instant) -> Instant | None:
    """From when on data is kept at a time; None for data that is kept forever."""
    return None if rule.days is None else now - max(rule.days, LIMITS[rule.data].min_days) * DAY_US
