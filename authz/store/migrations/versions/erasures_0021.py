"""Creates the tables of erasures, of holds and of replicas, and the revision from which readers continue."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0021"
down_revision = "0020"


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create them."""
    _create_erasures()
    _create_steps()
    op.create_table(
        "holds",
        sa.Column("subject_type", _text(), primary_key=True),
        sa.Column("subject_id", _text(), primary_key=True),
        sa.Column("reason", _text(), nullable=False),
        sa.Column("actor", _text(), nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "replicas",
        sa.Column("name", _text(), primary_key=True),
        sa.Column("cleared", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
    )
    op.add_column("counter", sa.Column("resumable_from", sa.BigInteger, nullable=False, server_default="0"))


def _create_erasures() -> None:
    op.create_table(
        "erasures",
        sa.Column("pseudonym_type", _text(), primary_key=True),
        sa.Column("pseudonym_id", _text(), primary_key=True),
        sa.Column("mac", _text(), nullable=False),
        sa.Column("status", _text(), nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("reason", _text(), nullable=False),
        sa.Column("released", sa.Boolean, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    op.create_index("erasures_by_mac", "erasures", ["mac", "pseudonym_type", "pseudonym_id"])


def _create_steps() -> None:
    op.create_table(
        "erasure_steps",
        sa.Column("pseudonym_type", _text(), primary_key=True),
        sa.Column("pseudonym_id", _text(), primary_key=True),
        sa.Column("subject_id", _text()),
        sa.Column("heir_type", _text()),
        sa.Column("heir_id", _text()),
        sa.Column("phase", _text(), nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("steps", sa.BigInteger, nullable=False),
        sa.Column("actor", _text(), nullable=False),
        sa.Column("request_id", _text(), nullable=False),
        sa.Column("counts", _text(), nullable=False),
        sa.Column("kept", _text(), nullable=False),
        sa.Column("erased_at", sa.BigInteger),
        sa.Column("finished_at", sa.BigInteger),
    )
    op.create_index("erasure_steps_by_phase", "erasure_steps", ["phase"])
