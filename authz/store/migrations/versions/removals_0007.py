"""Creates the table of removals. Drops the foreign keys: a large course goes before its contents."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0007"
down_revision = "0006"


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table; drop the keys."""
    op.create_table(
        "removals",
        sa.Column("root", _text(), primary_key=True),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("steps", sa.BigInteger, nullable=False),
        sa.Column("course_id", _text()),
        sa.Column("session_id", _text()),
        *(sa.Column(name, _text(), nullable=False) for name in ("actor", "reason", "request_id")),
    )
    op.create_index("removals_by_age", "removals", ["since", "root"])
    for table, key in (("sessions", "sessions_course_fkey"), ("shares", "shares_resource_fkey")):
        with op.batch_alter_table(table) as altered:
            altered.drop_constraint(key, type_="foreignkey")
