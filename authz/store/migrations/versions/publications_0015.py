"""Lets a draft of the policy be published at a chosen time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0015"
down_revision = "0014"


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add when a draft is to be published, by whom, and until when a server does so."""
    op.add_column("policy_drafts", sa.Column("publication", _text()))
    op.add_column("policy_drafts", sa.Column("publish_at", sa.BigInteger))
    op.add_column("policy_drafts", sa.Column("claimed_until", sa.BigInteger))
