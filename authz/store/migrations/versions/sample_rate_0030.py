"""Names the sampling rate of a shadow as the API does."""

from __future__ import annotations

from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    """Rename the column."""
    op.execute("ALTER TABLE policy_shadows RENAME COLUMN share TO sample_rate")
