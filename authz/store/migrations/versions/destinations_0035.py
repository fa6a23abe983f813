"""Notes which destinations have the newest checkpoint; none is known to have that of before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"


def upgrade() -> None:
    """Replace the column that said whether all have it."""
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.add_column("checkpoints", sa.Column("published_to", text, nullable=False, server_default="[]"))
    op.drop_column("checkpoints", "is_published")
