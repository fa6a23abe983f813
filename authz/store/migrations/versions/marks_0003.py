"""Each revision has a mark, drawn by lot, so that two histories of one database can be told apart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column. Rows from before stay without a mark."""
    op.add_column("revisions", sa.Column("mark", sa.BigInteger, nullable=False, server_default="0"))
