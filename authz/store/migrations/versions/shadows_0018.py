"""Creates the table of the shadow of the policy."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0018"
down_revision = "0017"


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "policy_shadows",
        sa.Column("id", _text(), primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("draft_id", _text(), nullable=False),
        sa.Column("files", _text(), nullable=False),
        sa.Column("against_number", sa.BigInteger, nullable=False),
        sa.Column("share", sa.Float(53), nullable=False),
        sa.Column("budget_us", sa.BigInteger, nullable=False),
        sa.Column("author", _text(), nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("ends_at", sa.BigInteger, nullable=False),
        sa.Column("tally", _text(), nullable=False),
    )
