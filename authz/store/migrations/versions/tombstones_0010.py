"""Creates the table of tombstones, with those of the deletions that the change log has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0010"
down_revision = "0009"

_PARTS = {
    "postgresql": ("mutation::jsonb -> 'target' ->> 'type'", "mutation::jsonb -> 'target' ->> 'id'"),
    "sqlite": ("json_extract(mutation, '$.target.type')", "json_extract(mutation, '$.target.id')"),
}


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table, and fill it."""
    op.create_table(
        "tombstones",
        sa.Column("type", _text(), primary_key=True),
        sa.Column("id", _text(), primary_key=True),
        sa.Column("deleted_at", sa.BigInteger, nullable=False),
    )
    type_, id_ = _PARTS[op.get_bind().dialect.name]
    op.execute(
        sa.text(
            "INSERT INTO tombstones (type, id, deleted_at)"  # noqa: S608  no input
            f" SELECT gone.type, gone.id, max(gone.committed_at) FROM (SELECT {type_} AS type, {id_} AS id,"
            " revisions.committed_at FROM changes JOIN revisions ON revisions.revision = changes.revision"
            " WHERE changes.kind = 'resource' AND changes.operation = 'DELETE') AS gone"
            " WHERE NOT EXISTS (SELECT 1 FROM resources"
            " WHERE resources.type = gone.type AND resources.id = gone.id)"
            " GROUP BY gone.type, gone.id"
        )
    )
