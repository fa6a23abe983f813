"""Gives the database the key with which the service seals its tokens."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_KEY_BYTES = 32


def upgrade() -> None:
    """Draw the key. Tokens from before are no longer valid: anyone could have made them."""
    op.add_column(
        "counter", sa.Column("token_key", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"))
    )
    counter = sa.table("counter", sa.column("token_key"))
    op.execute(counter.update().values(token_key=secrets.token_hex(_KEY_BYTES)))
