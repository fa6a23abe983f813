"""The tables. Text is ordered by bytes on every database; instants are microseconds (`Instant`)."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.types import TypeEngine

metadata = MetaData()

REVISIONS_CHANNEL = "authz_revisions"
"""PostgreSQL only: each commit that made revisions notifies this channel of the new head, in decimal."""


def _text() -> TypeEngine[str]:
    return Text().with_variant(Text(collation="C"), "postgresql")


def _key(name: str) -> Column[str]:
    return Column(name, _text(), primary_key=True)


def _version() -> Column[int]:
    return Column("version", BigInteger, nullable=False)


courses = Table(
    "courses",
    metadata,
    _key("id"),
    Column("state", _text(), nullable=False),
    Column("ai_enabled", Boolean, nullable=False),
    Column("edit_window_us", BigInteger, nullable=False),
    _version(),
)

sessions = Table(
    "sessions",
    metadata,
    _key("id"),
    Column("course_id", _text(), ForeignKey("courses.id", name="sessions_course_fkey")),
    Column("state", _text(), nullable=False),
    Column("starts_at", BigInteger),
    Column("ends_at", BigInteger),
    Column("open_to_course", Boolean, nullable=False),
    _version(),
    Index("sessions_by_course", "course_id", "id"),
)

memberships = Table(
    "memberships",
    metadata,
    _key("scope_kind"),
    _key("scope_id"),
    _key("subject_type"),
    _key("subject_id"),
    _key("role"),
    Column("status", _text(), nullable=False),
    Column("starts_at", BigInteger),
    Column("ends_at", BigInteger),
    Column("source", _text(), nullable=False),
    Column("source_ref", _text(), nullable=False),
    _version(),
    Index("memberships_by_subject", "subject_type", "subject_id", "scope_kind", "scope_id", "role"),
)

resources = Table(
    "resources",
    metadata,
    _key("type"),
    _key("id"),
    Column("scope_kind", _text(), nullable=False),
    Column("scope_id", _text(), nullable=False),
    Column("owner_type", _text()),
    Column("owner_id", _text()),
    Column("visibility", _text(), nullable=False),
    Column("published", Boolean, nullable=False),
    Column("available_from", BigInteger),
    Column("available_until", BigInteger),
    Column("created_at", BigInteger),
    Column("locked", Boolean, nullable=False),
    Column("ai_allowed", Boolean, nullable=False),
    _version(),
    Index("resources_by_scope", "scope_kind", "scope_id", "type", "id"),
    Index("resources_by_owner", "owner_type", "owner_id", "type", "id"),
)

shares = Table(
    "shares",
    metadata,
    _key("resource_type"),
    _key("resource_id"),
    _key("subject_type"),
    _key("subject_id"),
    Column("level", _text(), nullable=False),
    _version(),
    ForeignKeyConstraint(
        ["resource_type", "resource_id"], ["resources.type", "resources.id"], name="shares_resource_fkey"
    ),
    Index("shares_by_subject", "subject_type", "subject_id", "resource_type", "resource_id"),
)

counter = Table(
    "counter",
    metadata,
    Column("only", Integer, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
    Column("database_id", _text(), nullable=False),
)
"""One row, `only` = 1. Whoever holds its lock is the one writer."""

revisions = Table(
    "revisions",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("actor", _text(), nullable=False),
    Column("reason", _text(), nullable=False),
    Column("request_id", _text(), nullable=False),
    Column("committed_at", BigInteger, nullable=False),
    Column("nonce", BigInteger, nullable=False, server_default="0"),
)
"""`nonce` is the transaction's, and 0 in rows from before migration 0003."""

changes = Table(
    "changes",
    metadata,
    Column(
        "revision",
        BigInteger,
        ForeignKey("revisions.revision", name="changes_revision_fkey"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("kind", _text(), nullable=False),
    Column("operation", _text(), nullable=False),
    Column("mutation", _text(), nullable=False),
    Column("course_id", _text()),
    Column("session_id", _text()),
)
"""`course_id` and `session_id` are the `ChangeScope`: NULL also in rows from before migration 0002."""

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    _key("key"),
    Column("digest", _text(), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("idempotency_keys_by_age", "created_at"),
)
