"""Notes whose hold keeps a batch of decisions; of those that are kept already, nobody's is known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"


def upgrade() -> None:
    """Add the column."""
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.add_column("decision_leaves", sa.Column("held_by", text))
