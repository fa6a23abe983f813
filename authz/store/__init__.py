"""The source of truth in SQL. The only package that knows SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from sqlalchemy import Engine

from authz.domain.instants import Instant
from authz.domain.vocabulary import Vocabulary
from authz.store.connections import OpenConnections
from authz.store.directory import SqlDirectory
from authz.store.engine import companion_path, open_engine, sqlite_file
from authz.store.schema import migrate as migrate_database
from authz.store.schema import require_current

__all__ = ["Store", "companion_path", "migrate_store", "open_store", "prepare_store", "sqlite_file"]


class Store(msgspec.Struct, frozen=True):
    """An open database."""

    directory: SqlDirectory

    def close(self) -> None:
        """Release every connection."""
        self.directory.close()


def open_store(
    url: str,
    *,
    vocabulary: Callable[[], Vocabulary],
    clock: Callable[[], Instant],
    migrate: bool = True,
    verify: bool = True,
) -> Store:
    """Open a database and, with `migrate`, bring its schema up to date first.

    Without `verify`, which is for whoever knows that the schema is current, nothing connects yet.
    Raises `InvalidArgumentError` for a bad URL, `UnavailableError` when it does not answer,
    `FailedPreconditionError` when the schema is not current.
    """
    engine = open_engine(url)
    connections = OpenConnections(engine)  # from the first one on
    try:
        _prepare(engine, migrate=migrate, verify=verify)
        return Store(SqlDirectory(engine, connections, vocabulary, clock))
    except BaseException:
        engine.dispose()
        raise


def prepare_store(url: str, *, migrate: bool) -> None:
    """Make sure of the schema of a database, as `open_store` does, and raising the same."""
    engine = open_engine(url)
    try:
        _prepare(engine, migrate=migrate, verify=True)
    finally:
        engine.dispose()


def _prepare(engine: Engine, *, migrate: bool, verify: bool) -> None:
    if migrate:
        migrate_database(engine)
    if verify:
        require_current(engine)


def migrate_store(url: str) -> None:
    """Bring the schema of a database up to date."""
    engine = open_engine(url)
    try:
        migrate_database(engine)
    finally:
        engine.dispose()
