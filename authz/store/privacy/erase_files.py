"""Removes the remains of deleted rows from database files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.dialects.postgresql import REGCLASS

from authz.domain.errors import ConflictError
from authz.store.database.connections import expecting_long_statements
from authz.store.database.engine import write_transaction
from authz.store.database.failures import translated
from authz.store.tables import metadata

_LEFT = (
    "PostgreSQL keeps the bytes of changed rows in its files: run VACUUM FULL on the database when the"
    " service may pause",
    "PostgreSQL keeps the statistics of a table that has no rows any more, until it has some and is analyzed",
    "PostgreSQL's write-ahead log has them until its files are deleted or overwritten, archived ones and base"
    " backups until they expire: delete what is older than this certificate",
)
_NOT_ANALYZED = (
    "PostgreSQL keeps the statistics of tables that the server's user may not analyze, with values of deleted"
    " rows: run ANALYZE as the owner of the tables"
)
_CLASSES = sa.table("pg_class", sa.column("oid"), sa.column("relowner"))
_WAIT_MS = 100
_ALWAYS = (
    "decisions on standard output, in a collector, or in files that another program moved have the subject:"
    " delete them, or run `authz privacy erase-log` on the files",
    "backups from before this have the subject: delete them; to restore one, first run"
    " `authz privacy erasures --export FILE`, then `authz restore BACKUP --erasures FILE`",
)


def rewrite_file(engine: Engine) -> None:
    """Rewrite a SQLite file without free pages. Writers wait meanwhile.

    On PostgreSQL, analyze every table: the statistics of the planner contain values of deleted rows. It skips
    a table that the user may not analyze, with a warning in its log alone: `left_to_operator` tells it.
    """
    if engine.dialect.name == "sqlite":
        with _cursor(engine) as cursor:
            cursor.execute("VACUUM")
        return
    for table in metadata.sorted_tables:
        with write_transaction(engine) as connection, expecting_long_statements(connection):
            connection.exec_driver_sql(f"ANALYZE {table.name}")


def truncate_log(engine: Engine) -> None:
    """Empty the write-ahead log of SQLite. Raises `ConflictError` while somebody reads an old state of it."""
    if engine.dialect.name != "sqlite":
        return
    with _cursor(engine) as cursor:
        # Writers wait as long as this waits for readers.
        (usual_ms,) = cursor.execute("PRAGMA busy_timeout").fetchone()
        cursor.execute(f"PRAGMA busy_timeout = {_WAIT_MS}")
        try:
            is_busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {usual_ms}")
    if is_busy:
        raise ConflictError("somebody reads an old state of the database; it is tried again")


def left_to_operator(connection: Connection) -> tuple[str, ...]:
    """What the service cannot do, as instructions."""
    if connection.dialect.name != "postgresql":
        return _ALWAYS
    return (*(() if _may_analyze(connection) else (_NOT_ANALYZED,)), *_LEFT, *_ALWAYS)


def _may_analyze(connection: Connection) -> bool:
    # Before version 17, which has the privilege MAINTAIN, only the owner of a table may analyze it.
    has_maintain = (connection.dialect.server_version_info or ()) >= (17,)
    right = (
        sa.func.has_table_privilege(_CLASSES.c.oid, "MAINTAIN")
        if has_maintain
        else sa.func.pg_has_role(_CLASSES.c.relowner, "USAGE")
    )
    of_service = [sa.cast(each.name, REGCLASS) for each in metadata.sorted_tables]
    return bool(connection.scalar(sa.select(sa.func.bool_and(right)).where(_CLASSES.c.oid.in_(of_service))))


@contextmanager
def _cursor(engine: Engine) -> Iterator[Any]:
    """For statements that cannot run in a transaction."""
    with translated(), closing(engine.raw_connection()) as connection, closing(connection.cursor()) as cursor:
        yield cursor
