"""Indexes the revisions by time, for questions about the changes between two times."""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Create the index."""
    op.create_index("revisions_by_time", "revisions", ["committed_at", "revision"])
