"""Creates the table of drafts of the policy."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0013"
down_revision = "0012"


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "policy_drafts",
        sa.Column("id", _text(), primary_key=True),
        sa.Column("etag", sa.BigInteger, nullable=False),
        sa.Column("base_number", sa.BigInteger, nullable=False),
        sa.Column("files", _text(), nullable=False),
        sa.Column("author", _text(), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("edited_at", sa.BigInteger, nullable=False),
    )
