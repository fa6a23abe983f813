"""Creates the table of access tokens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0014"
down_revision = "0013"


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "access_tokens",
        sa.Column("id", _text(), primary_key=True),
        sa.Column("subject_type", _text(), nullable=False),
        sa.Column("subject_id", _text(), nullable=False),
        sa.Column("digest", _text(), nullable=False),
        sa.Column("ends_at", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    op.create_index("access_tokens_by_subject", "access_tokens", ["subject_type", "subject_id", "id"])
