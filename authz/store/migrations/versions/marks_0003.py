"""Adds `mark` to each revision: a random number that tells two histories of one database apart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column. Rows from before keep 0."""
    op.add_column("revisions", sa.Column("mark", sa.BigInteger, nullable=False, server_default="0"))
