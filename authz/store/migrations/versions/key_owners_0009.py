"""Gives each idempotency key to the caller that sent it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0009"
down_revision = "0008"


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table again with `actor` in its primary key. A known key belongs to the actor of its write."""
    op.execute(
        "CREATE TABLE kept AS"
        " SELECT coalesce(revisions.actor, 'unauthenticated') AS actor, known.*"
        " FROM idempotency_keys AS known LEFT JOIN revisions ON revisions.revision = known.revision"
    )
    op.drop_table("idempotency_keys")
    op.create_table(
        "idempotency_keys",
        sa.Column("actor", _text(), primary_key=True),
        sa.Column("key", _text(), primary_key=True),
        sa.Column("digest", _text(), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_index("idempotency_keys_by_age", "idempotency_keys", ["created_at"])
    columns = "actor, key, digest, revision, created_at"
    op.execute(f"INSERT INTO idempotency_keys ({columns}) SELECT {columns} FROM kept")  # noqa: S608  no input
    op.execute("DROP TABLE kept")
