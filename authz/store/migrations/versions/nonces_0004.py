"""Renames `revisions.mark` to `nonce`, the term that the field uses."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Rename the column; its values stay."""
    op.alter_column("revisions", "mark", new_column_name="nonce")
