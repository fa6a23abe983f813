"""Creates what retention needs: rules, the previous revision of each change, changes kept by holds, indexes.

The leaves of the change log have another format from here on: the next checkpoint makes them again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0027"
down_revision = "0026"

_KEYS = {
    "course": ("id",),
    "session": ("id",),
    "membership": ("subject", "scope", "role"),
    "resource": ("type", "id"),
    "share": ("resource", "subject"),
    "account": ("subject",),
    "access_token": ("id",),
    "policy_version": ("scope", "number"),
    "policy_activation": ("scope",),
    "erasure": ("pseudonym",),
}
"""The fields that identify a record in the JSON of a change, by kind."""


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create it, and find the previous revision of every change."""
    op.create_table(
        "retention_rules",
        sa.Column("data", _text(), primary_key=True),
        sa.Column("days", sa.BigInteger),
        sa.Column("removed", sa.BigInteger),
        sa.Column("complete_since", sa.BigInteger),
        sa.Column("through", sa.BigInteger),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "held_changes",
        sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("subject_type", _text()),
        sa.Column("subject_id", _text()),
    )
    op.create_index("held_changes_by_subject", "held_changes", ["subject_id", "subject_type"])
    op.create_index("tombstones_by_age", "tombstones", ["deleted_at"])
    ends = sa.text("ends_at IS NOT NULL AND suspended_until IS NULL AND status IN ('ACTIVE', 'INVITED')")
    op.create_index(
        "memberships_by_end", "memberships", ["ends_at"], sqlite_where=ends, postgresql_where=ends
    )
    op.add_column("leaves", sa.Column("purged", _text(), nullable=False, server_default=""))
    op.execute("DELETE FROM leaves")
    op.add_column("decision_leaves", sa.Column("state", _text(), nullable=False, server_default="KEPT"))
    op.execute(
        "UPDATE decision_leaves SET state = 'PURGED' WHERE number <= (SELECT purged FROM decision_tree)"
    )
    op.drop_column("decision_tree", "purged")
    op.create_index("decision_leaves_by_state", "decision_leaves", ["state", "number"])
    op.add_column("changes", sa.Column("previous", sa.BigInteger))
    op.execute(_find_previous(op.get_bind().dialect.name))


def _find_previous(dialect: str) -> str:
    """Store for each change the revision of the one before it of the same record; 0 after a deletion."""
    path = (
        "(mutation::jsonb #>> '{{target,{}}}')"
        if dialect == "postgresql"
        else "json_extract(mutation, '$.target.{}')"
    )
    keys = " ".join(
        f"WHEN '{kind}' THEN " + " || ' ' || ".join(path.format(field) for field in fields)
        for kind, fields in _KEYS.items()
    )
    return f"""
        UPDATE changes SET previous = (CASE WHEN found.after = 'DELETE' THEN 0 ELSE found.last END)
        FROM (
            SELECT revision, position,
                coalesce(lag(revision) OVER same_record, 0) AS last,
                lag(operation) OVER same_record AS after
            FROM changes
            WINDOW same_record AS (PARTITION BY kind, CASE kind {keys} END ORDER BY revision, position)
        ) AS found
        WHERE changes.revision = found.revision AND changes.position = found.position
    """  # noqa: S608  of constants alone
