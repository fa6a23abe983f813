"""The oldest schema that is migrated. A new database gets the tables of this version at once."""

from __future__ import annotations

revision = "0027"
down_revision = None


def upgrade() -> None:
    """Nothing: a database has this schema already."""
