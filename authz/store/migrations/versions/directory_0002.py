"""The change log says where each entity is. Rows from before stay without: nobody knows of them."""

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
