"""Adds the course and session of each entity to the change log. They stay NULL in existing rows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns of the place."""
    for name in ("course_id", "session_id"):
        op.add_column(
            "changes", sa.Column(name, sa.Text().with_variant(sa.Text(collation="C"), "postgresql"))
        )
