"""Adds `memberships.suspended_until`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column. Nobody is suspended until a time yet."""
    op.add_column("memberships", sa.Column("suspended_until", sa.BigInteger))
