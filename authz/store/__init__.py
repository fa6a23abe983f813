"""The source of truth, in SQL. The only package that imports SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from authz.domain.instants import US_PER_S, Instant
from authz.domain.ports import Vocabularies
from authz.domain.tokens import TokenKeys
from authz.store.database.connections import OpenConnections
from authz.store.database.engine import (
    companion_path,
    database_name,
    has_password,
    open_engine,
    opened,
    primaries,
    require_own_statements,
    sqlite_file,
    sqlite_files,
)
from authz.store.directory import SqlDirectory
from authz.store.drafts import Drafts
from authz.store.log.audit import AuditTrail
from authz.store.log.decisions import SqlDecisions
from authz.store.log.proofs import SqlCheckpoints, SqlProofs
from authz.store.privacy.personal_data import PersonalData
from authz.store.privacy.recipients import Recipients
from authz.store.privacy.retention import Retention
from authz.store.schema import FirstWrite, require_current, require_tables
from authz.store.schema import migrate as migrate_database
from authz.store.shadows import Shadows
from authz.store.write import MAX_CONTENTS_AT_ONCE

__all__ = [
    "FirstWrite",
    "Store",
    "companion_path",
    "database_name",
    "has_password",
    "open_store",
    "prepare_store",
    "primaries",
    "require_own_statements",
    "sqlite_file",
    "sqlite_files",
]


class Store(msgspec.Struct, frozen=True):
    """An open database."""

    directory: SqlDirectory
    drafts: Drafts
    personal_data: PersonalData
    audit: AuditTrail
    decisions: SqlDecisions
    shadows: Shadows
    proofs: SqlProofs
    checkpoints: SqlCheckpoints
    recipients: Recipients
    retention: Retention

    def close(self) -> None:
        self.directory.close()


def open_store(
    url: str,
    *,
    vocabularies: Vocabularies,
    clock: Callable[[], Instant],
    keys: TokenKeys | None = None,
    password_file: str = "",
    contents_at_once: int = MAX_CONTENTS_AT_ONCE,
    erasure_grace_s: float = 0,
) -> Store:
    """Open a database that has the schema of this version. Nothing connects yet.

    `password_file` is read for each connection to PostgreSQL. The store adds the key of the database to
    `keys`. `contents_at_once` bounds what one transaction deletes of what is inside deleted records.
    `erasure_grace_s` is how long readers have to read what an erasure deleted. Raises `InvalidArgumentError`
    for a bad URL.
    """
    engine = open_engine(url, password_file)
    keys = TokenKeys() if keys is None else keys
    connections = OpenConnections(engine)
    directory = SqlDirectory(
        engine, connections, vocabularies, clock, keys, contents_at_once=contents_at_once
    )
    return Store(
        directory,
        Drafts(engine),
        PersonalData(engine, directory, clock, grace_us=round(erasure_grace_s * US_PER_S)),
        AuditTrail(engine, keys),
        SqlDecisions(engine, keys),
        Shadows(engine),
        SqlProofs(engine),
        SqlCheckpoints(engine),
        Recipients(engine, clock),
        Retention(engine, directory, clock),
    )


def prepare_store(
    url: str,
    *,
    password_file: str = "",
    migrate: bool = True,
    create: bool = True,
    first: FirstWrite | None = None,
) -> None:
    """Require the schema of this version and, with `migrate`, bring the database to it first.

    With `migrate`, also makes `first` in a database without an active policy and, with `create`, the tables
    of an empty database and a SQLite file that is missing. Raises `InvalidArgumentError` for a bad URL,
    `UnavailableError` when the database does not answer, or is empty and not to be created,
    `FailedPreconditionError` for another schema. A migration may take as long as it needs:
    its connections have no watchdog.
    """
    with opened(url, password_file, create=migrate and create) as engine:
        if migrate:
            if not create:
                require_tables(engine)
            migrate_database(engine, first)
        require_current(engine)
