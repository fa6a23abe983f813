"""Creates the table of the decision log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0020"
down_revision = "0019"

_TEXTS = (
    *("method", "code", "caller", "person", "request_id", "subject", "action", "resource"),
    *("course_id", "session_id", "purpose", "reason", "role", "rule"),
    *("policy_version", "course_policy_version"),
)


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table and its indexes."""
    op.create_table(
        "decisions",
        sa.Column("at", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("decision_id", _text(), primary_key=True),
        *(sa.Column(name, _text(), nullable=False) for name in _TEXTS),
        sa.Column("allowed", sa.Boolean, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("duration_us", sa.BigInteger, nullable=False),
    )
    for name in ("subject", "resource"):
        op.create_index(f"decisions_by_{name}", "decisions", [name, "at", "decision_id"])
