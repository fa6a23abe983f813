"""Names the revision of a record as it is named everywhere else."""

from __future__ import annotations

from alembic import op

revision = "0031"
down_revision = "0030"

_RECORDS = (
    "courses",
    "sessions",
    "memberships",
    "resources",
    "shares",
    "accounts",
    "access_tokens",
    "erasures",
    "retention_rules",
    "policy_versions",
    "policy_activations",
)


def upgrade() -> None:
    """Rename the column. In SQLite, too, the statement does not rewrite the rows."""
    for table in _RECORDS:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN version TO revision")
