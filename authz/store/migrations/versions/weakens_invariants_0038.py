"""Notes which versions of the policy weakened its invariants; of those that there are, it is not known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0037"


def upgrade() -> None:
    """Add the column."""
    flag = sa.Boolean()
    op.add_column(
        "policy_versions",
        sa.Column("weakens_invariants", flag, nullable=False, server_default=sa.false()),
    )
