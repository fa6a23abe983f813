"""Makes a hold a record: it has the revision that placed it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    """Add the column. `schema.migrate` logs the holds that are there, and gives them their revision."""
    op.add_column("holds", sa.Column("revision", sa.BigInteger, nullable=False, server_default="0"))
