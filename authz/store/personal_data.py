"""What the database holds about a subject."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from authz.domain.ids import Subject
from authz.store.connections import expecting_long_statements
from authz.store.directory import SqlDirectory
from authz.store.engine import read_transaction
from authz.store.exports import SqlExport


class SqlPersonalData:
    """A `PersonalData` in SQLite or PostgreSQL."""

    def __init__(self, engine: Engine, directory: SqlDirectory) -> None:
        self._engine = engine
        self._directory = directory

    @contextmanager
    def export(self, subject: Subject) -> Iterator[SqlExport]:
        """See `PersonalData.export`."""
        with read_transaction(self._engine) as connection, expecting_long_statements(connection):
            found = SqlExport(connection, subject)
            self._directory.learn_key(connection, found.state.database_id)
            yield found
