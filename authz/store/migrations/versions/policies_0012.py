"""Creates the tables of the versions of policies, and of which of them is active."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0012"
down_revision = "0011"


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "policy_versions",
        sa.Column("scope_kind", _text(), primary_key=True),
        sa.Column("scope_id", _text(), primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("digest", _text(), nullable=False),
        sa.Column("files", _text(), nullable=False),
        sa.Column("format", sa.BigInteger, nullable=False),
        sa.Column("author", _text(), nullable=False),
        sa.Column("reason", _text(), nullable=False),
        sa.Column("created_at", sa.BigInteger),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "policy_activations",
        sa.Column("scope_kind", _text(), primary_key=True),
        sa.Column("scope_id", _text(), primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("digest", _text(), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
