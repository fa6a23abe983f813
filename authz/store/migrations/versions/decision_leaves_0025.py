"""Creates the tree of the logged decisions. Decisions from before are in none of its leaves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0025"
down_revision = "0024"


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the tables, and the column that says in which leaf a decision is."""
    op.create_table(
        "decision_leaves",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hash", _text(), nullable=False),
        sa.Column("part", _text()),
        sa.Column("entries", sa.Integer, nullable=False),
        sa.Column("first_at", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
    )
    tree = op.create_table(
        "decision_tree",
        sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("purged", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(tree, [{"only": 1, "size": 0, "purged": 0}])
    op.add_column("decisions", sa.Column("leaf", sa.BigInteger))
    op.add_column(
        "checkpoints", sa.Column("decisions_size", sa.BigInteger, nullable=False, server_default="0")
    )
