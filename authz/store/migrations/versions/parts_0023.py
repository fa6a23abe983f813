"""Adds the hashes of complete parts of the tree of the change log. Existing leaves get theirs later."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0023"
down_revision = "0022"


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the column."""
    op.add_column("leaves", sa.Column("part", _text()))
