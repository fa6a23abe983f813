"""Indexes the change log by the course and session of each change, for questions about the past."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Create the index."""
    op.create_index("changes_by_scope", "changes", ["course_id", "session_id"])
