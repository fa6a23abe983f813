"""Creates the table of the leaves of the change log. Existing revisions get theirs later."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0022"
down_revision = "0021"


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "leaves",
        sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hash", _text(), nullable=False),
        sa.Column("seals", _text(), nullable=False),
    )
