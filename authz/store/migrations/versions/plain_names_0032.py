"""Names the keyed hashes of texts, and who gets the resources of an erased person, as the code does."""

from __future__ import annotations

from alembic import op

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    """Rename the columns."""
    op.execute("ALTER TABLE leaves RENAME COLUMN seals TO text_macs")
    op.execute("ALTER TABLE erasure_steps RENAME COLUMN heir_type TO new_owner_type")
    op.execute("ALTER TABLE erasure_steps RENAME COLUMN heir_id TO new_owner_id")
