"""Adds `shares.awaits_membership`. It is set for shares whose subject has no membership there: they stay."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_AWAITING = """
UPDATE shares SET awaits_membership = true WHERE NOT EXISTS (
    SELECT 1 FROM resources
    LEFT JOIN sessions ON resources.scope_kind = 'session' AND sessions.id = resources.scope_id
    JOIN memberships ON (memberships.scope_kind = resources.scope_kind
            AND memberships.scope_id = resources.scope_id)
        OR (memberships.scope_kind = 'course' AND memberships.scope_id = sessions.course_id)
    WHERE resources.type = shares.resource_type AND resources.id = shares.resource_id
        AND memberships.subject_type = shares.subject_type AND memberships.subject_id = shares.subject_id
)
"""


def upgrade() -> None:
    """Add the column; keep what is shared already."""
    op.add_column(
        "shares", sa.Column("awaits_membership", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.execute(_AWAITING)
