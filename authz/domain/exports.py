"""The export of a subject: its items, in the order in which they are streamed."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import msgspec

from authz.domain.entities import Entity
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


class ExportRelation(StrEnum):
    """Why a record is in an export."""

    ABOUT = "ABOUT"
    CONTEXT = "CONTEXT"


class ExportRetention(msgspec.Struct, frozen=True):
    """The purpose and retention of one section."""

    section: ExportSection
    purpose: str
    kept: str


RETENTION = (
    ExportRetention(
        ExportSection.RECORDS,
        "decide who may do what",
        "until the record is deleted; all of them until the subject is erased",
    ),
    ExportRetention(
        ExportSection.CHANGES,
        "audit trail of changes, replication, and questions about the past",
        "as long as the database; the subject is named in it until it is erased",
    ),
    ExportRetention(
        ExportSection.IDEMPOTENCY_KEYS, "give a write that is repeated the answer of the first", "7 days"
    ),
    ExportRetention(
        ExportSection.POLICY_DRAFTS, "edit the policy", "until the draft is published or deleted"
    ),
    ExportRetention(
        ExportSection.POLICY_VERSIONS, "prove which policy decided when", "as long as the database"
    ),
    ExportRetention(ExportSection.HOLDS, "keep what the law demands", "until the hold is released"),
    ExportRetention(
        ExportSection.DECISIONS,
        "tell who was let in to what, by whom",
        "a year, unless the operator has set another period",
    ),
    ExportRetention(
        ExportSection.POLICY_SHADOW,
        "show what a policy that is tried on live checks decides differently",
        "30 days after its end, or until the next one is started",
    ),
    ExportRetention(
        ExportSection.RECIPIENTS,
        "tell who received data about the subject",
        "callers that asked: as long as the decisions; watchers: until an operator removes them",
    ),
)
"""Also documented in docs/privacy.md."""


class ExportBegin(msgspec.Struct, frozen=True):
    """The header of an export. `token` names the state that was read."""

    subject: Subject
    token: str
    committed_at: Instant
    retention: tuple[ExportRetention, ...] = RETENTION


class ExportedRecord(msgspec.Struct, frozen=True):
    """A record about the subject, or one that such a record refers to."""

    record: Entity
    version: int
    relation: ExportRelation


class ExportedChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change that the subject made, or that is about the subject; a large one in parts."""

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
