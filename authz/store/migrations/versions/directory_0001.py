"""The directory, its change log and the identity of the database."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, _text(), primary_key=True)


def _column(name: str) -> sa.Column[str]:
    return sa.Column(name, _text(), nullable=False)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False)


def _instant(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def upgrade() -> None:
    """Make every table; give the database its identity."""
    _create_scopes()
    _create_memberships()
    _create_resources()
    _create_log()
    counter = op.create_table(
        "counter",
        sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
        _count("revision"),
        _column("database_id"),
    )
    op.bulk_insert(counter, [{"only": 1, "revision": 0, "database_id": secrets.token_hex(16)}])


def _create_scopes() -> None:
    op.create_table(
        "courses",
        _key("id"),
        _column("state"),
        _flag("ai_enabled"),
        _count("edit_window_us"),
        _count("version"),
    )
    op.create_table(
        "sessions",
        _key("id"),
        sa.Column("course_id", _text(), sa.ForeignKey("courses.id", name="sessions_course_fkey")),
        _column("state"),
        _instant("starts_at"),
        _instant("ends_at"),
        _flag("open_to_course"),
        _count("version"),
    )
    op.create_index("sessions_by_course", "sessions", ["course_id", "id"])


def _create_memberships() -> None:
    op.create_table(
        "memberships",
        _key("scope_kind"),
        _key("scope_id"),
        _key("subject_type"),
        _key("subject_id"),
        _key("role"),
        _column("status"),
        _instant("starts_at"),
        _instant("ends_at"),
        _column("source"),
        _column("source_ref"),
        _count("version"),
    )
    op.create_index(
        "memberships_by_subject",
        "memberships",
        ["subject_type", "subject_id", "scope_kind", "scope_id", "role"],
    )


def _create_resources() -> None:
    op.create_table(
        "resources",
        _key("type"),
        _key("id"),
        _column("scope_kind"),
        _column("scope_id"),
        sa.Column("owner_type", _text()),
        sa.Column("owner_id", _text()),
        _column("visibility"),
        _flag("published"),
        _instant("available_from"),
        _instant("available_until"),
        _instant("created_at"),
        _flag("locked"),
        _flag("ai_allowed"),
        _count("version"),
    )
    op.create_index("resources_by_scope", "resources", ["scope_kind", "scope_id", "type", "id"])
    op.create_index("resources_by_owner", "resources", ["owner_type", "owner_id", "type", "id"])
    op.create_table(
        "shares",
        _key("resource_type"),
        _key("resource_id"),
        _key("subject_type"),
        _key("subject_id"),
        _column("level"),
        _count("version"),
        sa.ForeignKeyConstraint(
            ["resource_type", "resource_id"], ["resources.type", "resources.id"], name="shares_resource_fkey"
        ),
    )
    op.create_index(
        "shares_by_subject", "shares", ["subject_type", "subject_id", "resource_type", "resource_id"]
    )


def _create_log() -> None:
    op.create_table(
        "revisions",
        sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
        _column("actor"),
        _column("reason"),
        _column("request_id"),
        _count("committed_at"),
    )
    op.create_table(
        "changes",
        sa.Column(
            "revision",
            sa.BigInteger,
            sa.ForeignKey("revisions.revision", name="changes_revision_fkey"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        _column("kind"),
        _column("operation"),
        _column("mutation"),
    )
    op.create_table(
        "idempotency_keys",
        _key("key"),
        _column("digest"),
        _count("revision"),
        _count("created_at"),
    )
    op.create_index("idempotency_keys_by_age", "idempotency_keys", ["created_at"])
