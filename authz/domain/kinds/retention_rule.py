"""How long one kind of data is kept: its key, filter and rules."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from authz.domain.instants import Instant
from authz.domain.kinds.erasure import SERVICE
from authz.domain.kinds.fields import Number
from authz.domain.kinds.kind import Filter, Kind, RecordKey


class RetainedData(StrEnum):
    """What has a retention period of its own."""

    CHANGES = "CHANGES"
    """What is no longer the last change of a record, in the change log."""
    MEMBERSHIPS = "MEMBERSHIPS"
    """Memberships that have ended."""
    DECISIONS = "DECISIONS"
    """The decision log in the database."""
    IDEMPOTENCY_KEYS = "IDEMPOTENCY_KEYS"
    TOMBSTONES = "TOMBSTONES"
    """Which resources were registered once and are deleted."""


class RetentionRuleKey(RecordKey, frozen=True, gc=False, tag="retention_rule_key"):
    """Identifies a retention rule."""

    data: RetainedData

    def __str__(self) -> str:
        return f"retention of {self.data.lower()}"


class RetentionRule(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="retention_rule"):
    """How many days data is kept, None forever, and what was purged of it so far.

    `removed` counts items. Of what is older than `complete_since`, something may be gone. `through` is the
    last revision that the purge of the change log has looked at, in the rule of CHANGES, and the last batch
    that was purged, in that of DECISIONS; no other rule has it.
    """

    data: RetainedData
    days: Number | None = None
    removed: Number | None = None
    complete_since: Instant | None = None
    through: Number | None = None

    @property
    def key(self) -> RetentionRuleKey:
        """Its identity."""
        return RetentionRuleKey(self.data)


class RetentionRuleFilter(Filter[RetentionRule], frozen=True, kw_only=True):
    """Retention rules by data."""

    data: RetainedData | None = None


RETENTION_RULE = Kind(
    RetentionRule, RetentionRuleKey, RetentionRuleFilter, key_order=("data",), service=SERVICE
)
