"""Removes the remains of deleted rows from database files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from sqlalchemy import Engine

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
_WAIT_MS = 100
_ALWAYS = (
    "decisions on standard output, in a collector, or in files that another program moved have the subject:"
    " delete them, or run `authz privacy erase-log` on the files",
    "backups from before this have the subject: delete them; to restore one, first run"
    " `authz privacy erasures --export FILE`, then `authz restore BACKUP --erasures FILE`",
)


def rewrite_file(engine: Engine) -> None:
    """Rewrite a SQLite file without free pages. Writers wait meanwhile.

    On PostgreSQL, analyze every table: the statistics of the planner contain values of deleted rows.
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


def left_to_operator(engine: Engine) -> tuple[str, ...]:
    """What the service cannot do, as instructions."""
    return (*(_LEFT if engine.dialect.name == "postgresql" else ()), *_ALWAYS)


@contextmanager
def _cursor(engine: Engine) -> Iterator[Any]:
    """For statements that cannot run in a transaction."""
    with translated(), closing(engine.raw_connection()) as connection, closing(connection.cursor()) as cursor:
        yield cursor
