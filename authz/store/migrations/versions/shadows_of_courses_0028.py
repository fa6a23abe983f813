"""Lets a course have a shadow of its own policy."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0028"
down_revision = "0027"


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the course, and the version of its policy that the candidate is compared with."""
    op.add_column("policy_shadows", sa.Column("course_id", _text(), nullable=False, server_default=""))
    op.add_column(
        "policy_shadows",
        sa.Column("against_course_number", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.create_index("policy_shadows_by_course", "policy_shadows", ["course_id"], unique=True)
    op.create_index("policy_shadows_by_end", "policy_shadows", ["ends_at"])
