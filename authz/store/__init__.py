"""The source of truth in SQL. The only package that knows SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from authz.domain.instants import Instant
from authz.domain.vocabulary import Vocabulary
from authz.store.directory import SqlDirectory
from authz.store.engine import companion_path, open_engine
from authz.store.schema import migrate as migrate_database
from authz.store.schema import require_current

__all__ = ["Store", "companion_path", "migrate_store", "open_store"]


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
    try:
        if migrate:
            migrate_database(engine)
        if verify:
            require_current(engine)
        return Store(SqlDirectory(engine, vocabulary, clock))
    except BaseException:
        engine.dispose()
        raise


def migrate_store(url: str) -> None:
    """Bring the schema of a database up to date."""
    engine = open_engine(url)
    try:
        migrate_database(engine)
    finally:
        engine.dispose()
