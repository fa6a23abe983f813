"""Notices that PostgreSQL waits with commits for a synchronous standby which does not answer.

The connection that commits cannot tell why its answer takes long.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from authz.domain.errors import no_answer

WAITS_FOR_STANDBY = (
    "the database waits with each write for a synchronous standby, and none answers; start the standby, or"
    " reset `synchronous_standby_names`"
)
_WAITS = text("""
    SELECT EXISTS (
        SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event = 'SyncRep'
            AND query_start < clock_timestamp() - interval '2 s'
    )
""")
"""Far longer than a standby takes to confirm. A session whose client has gone waits on, too.

Source: https://www.postgresql.org/docs/current/monitoring-stats.html#WAIT-EVENT-IPC-TABLE
"""


def require_standby(connection: Connection) -> None:
    """Raise `UnavailableError` (STORE_UNAVAILABLE) while a commit waits for a standby that is silent."""
    if connection.dialect.name == "postgresql" and connection.scalar(_WAITS):
        raise no_answer(WAITS_FOR_STANDBY)
