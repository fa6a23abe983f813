"""The export of a subject: its items, in the order in which they are streamed."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TypeAlias

import msgspec

from authz.domain.entities import Entity, RetainedData, RetentionRule
from authz.domain.ids import Subject, SubjectType
from authz.domain.instants import Instant
from authz.domain.mutations import Mutation


class ExportSection(StrEnum):
    """The part of the database that an exported item comes from."""

    RECORDS = "RECORDS"
    CHANGES = "CHANGES"
    IDEMPOTENCY_KEYS = "IDEMPOTENCY_KEYS"
    POLICY_DRAFTS = "POLICY_DRAFTS"
    POLICY_VERSIONS = "POLICY_VERSIONS"
    HOLDS = "HOLDS"
    DECISIONS = "DECISIONS"
    POLICY_SHADOW = "POLICY_SHADOW"
    RECIPIENTS = "RECIPIENTS"
    RENAMES = "RENAMES"


RESTRICTION_ENTRY = "restriction"
"""The name of the entry, among the holds, that says that the subject is restricted, and why."""


class ExportRelation(StrEnum):
    """Why a record is in an export."""

    ABOUT = "ABOUT"
    CONTEXT = "CONTEXT"


class ExportRetention(msgspec.Struct, frozen=True):
    """The purpose and retention of one section."""

    section: ExportSection
    purpose: str
    kept: str


_RULES = {
    ExportSection.CHANGES: RetainedData.CHANGES,
    ExportSection.IDEMPOTENCY_KEYS: RetainedData.IDEMPOTENCY_KEYS,
    ExportSection.DECISIONS: RetainedData.DECISIONS,
    ExportSection.RENAMES: RetainedData.CHANGES,
}
_RECORDS = "until the record is deleted or the person is erased; ended memberships "
_KEPT = {
    ExportSection.RECORDS: ("decide who may do what", ""),
    ExportSection.CHANGES: (
        "audit trail of changes, replication, and questions about the past",
        "; the last change of each record as long as the record; it names the person until the erasure",
    ),
    ExportSection.IDEMPOTENCY_KEYS: ("detect a repeated write", ""),
    ExportSection.POLICY_DRAFTS: ("edit the policy", "until the draft is published or deleted"),
    ExportSection.POLICY_VERSIONS: ("prove which policy decided when", "as long as the database"),
    ExportSection.HOLDS: (
        "keep what the law demands, and what is in dispute",
        "until the hold is released, or the restriction lifted",
    ),
    ExportSection.DECISIONS: ("record who got access to what, through which service", ""),
    ExportSection.POLICY_SHADOW: (
        "show what a candidate policy would change",
        "30 days after its end, or until the next one is started",
    ),
    ExportSection.RECIPIENTS: (
        "tell who received data about the person",
        "callers that asked: as long as the decisions; watchers: until an operator removes them",
    ),
    ExportSection.RENAMES: (
        "find what is known under the other id",
        "; longer if other data may have the old id",
    ),
}
"""Also documented in docs/privacy.md. The period of a retention rule comes before the text."""


def retention_of(rules: Iterable[RetentionRule]) -> tuple[ExportRetention, ...]:
    """The purpose and retention of every section, by the rules as they are."""
    periods = {rule.data: "forever" if rule.days is None else f"{rule.days} days" for rule in rules}
    kept = {section: periods[data] + _KEPT[section][1] for section, data in _RULES.items()}
    kept[ExportSection.RECORDS] = _RECORDS + periods[RetainedData.MEMBERSHIPS]
    return tuple(
        ExportRetention(section, purpose, kept.get(section, text))
        for section, (purpose, text) in _KEPT.items()
    )


class ExportBegin(msgspec.Struct, frozen=True):
    """The header of an export. `token` names the state that was read."""

    subject: Subject
    token: str
    committed_at: Instant
    retention: tuple[ExportRetention, ...]


class ExportedRecord(msgspec.Struct, frozen=True):
    """A record about the subject, or one that such a record refers to."""

    record: Entity
    revision: int
    relation: ExportRelation


class ExportedChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change that the subject made or that names the subject; a large one in parts."""

    committed_at: Instant
    actor: str
    reason: str
    request_id: str
    mutations: tuple[Mutation, ...]


class ExportedEntry(msgspec.Struct, frozen=True):
    """Any other data that names the subject, with its content."""

    section: ExportSection
    name: str
    text: str
    at: Instant | None = None


class ExportEnd(msgspec.Struct, frozen=True):
    """The trailer of a complete export, with the number of items per section."""

    counts: dict[ExportSection, int]


ExportItem: TypeAlias = ExportBegin | ExportedRecord | ExportedChange | ExportedEntry | ExportEnd


class SubjectExport(msgspec.Struct, frozen=True, kw_only=True):
    """A whole export as one JSON document. Times are microseconds since 1970, UTC."""

    format: str
    subject: Subject
    committed_at: Instant
    retention: tuple[ExportRetention, ...]
    records: tuple[ExportedRecord, ...]
    changes: tuple[ExportedChange, ...]
    entries: tuple[ExportedEntry, ...]
    counts: dict[ExportSection, int]


EXPORT_FORMAT = "authz-subject-export-1"
"""The value of `SubjectExport.format`."""

_OTHERS = {each: Subject(each, "other") for each in SubjectType}


def masked(other: Subject, subject: Subject) -> Subject:
    """A subject as it appears in the export of another."""
    return other if other == subject else _OTHERS[other.type]
