"""Creates the table of the newest signed checkpoint, with its one row."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0024"
down_revision = "0023"


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table."""
    table = op.create_table(
        "checkpoints",
        sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("note", _text(), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("is_published", sa.Boolean, nullable=False),
        sa.Column("next_at", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(table, [{"only": 1, "note": "", "size": 0, "is_published": True, "next_at": 0}])
