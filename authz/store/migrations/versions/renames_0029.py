"""Creates the table of renamed subjects."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0029"
down_revision = "0028"


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table. Earlier renames are not in it."""
    op.create_table(
        "renames",
        sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("old", _text(), nullable=False),
        sa.Column("new", _text(), nullable=False),
        sa.Column("renamed_at", sa.BigInteger, nullable=False),
        sa.Index("renames_by_old", "old"),
        sa.Index("renames_by_new", "new"),
    )
