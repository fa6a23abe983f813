"""Creates the table of accounts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0005"
down_revision = "0004"


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "accounts",
        sa.Column("subject_type", _text(), primary_key=True),
        sa.Column("subject_id", _text(), primary_key=True),
        sa.Column("status", _text(), nullable=False),
        sa.Column("suspended_until", sa.BigInteger),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
