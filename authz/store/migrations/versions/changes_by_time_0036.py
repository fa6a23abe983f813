"""Lets an index give the changes of a course, and those of a session, in their order."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"


def upgrade() -> None:
    """Replace the index, whose changes had to be sorted."""
    op.drop_index("changes_by_scope", "changes")
    op.create_index("changes_by_course", "changes", ["course_id", "revision", "position"])
    in_session = sa.text("session_id IS NOT NULL")
    op.create_index(
        "changes_by_session",
        "changes",
        ["session_id", "revision", "position"],
        sqlite_where=in_session,
        postgresql_where=in_session,
    )
