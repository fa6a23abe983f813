"""Makes the table of restrictions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"


def upgrade() -> None:
    """Create the table."""
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "restrictions",
        sa.Column("subject_type", text, primary_key=True),
        sa.Column("subject_id", text, primary_key=True),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
