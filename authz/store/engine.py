"""Connections and transactions on SQLite and PostgreSQL; maps their errors to the error tree."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from authz.domain.errors import AuthzError, ConflictError, ErrorReason, InvalidArgumentError, UnavailableError

_POOL_SIZE = 10
_POOL_OVERFLOW = 20
_POOL_TIMEOUT_S = 10
_LOCK_TIMEOUT_S = 10
_WAL_RETRY_S = 0.01
_POSTGRESQL_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 5,
    "options": f"-c lock_timeout={_LOCK_TIMEOUT_S}s",
    # A standby may be behind: the head that is read there may be an old one.
    "target_session_attrs": "read-write",
    # Notice within seconds that a host has vanished; by default that takes a quarter of an hour.
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""Defaults for what the URL leaves out. Source: https://www.postgresql.org/docs/current/libpq-connect.html"""
_CONFLICT_SQLSTATES = frozenset({"40001", "40P01", "55P03"})
_NO_TABLE_SQLSTATE = "42P01"
_WRITES = "authz_writes"


def open_engine(url: str) -> Engine:
    """An engine for `sqlite:///<file>` or `postgresql://…`; connects when first used.

    Raises `InvalidArgumentError` (MALFORMED_FIELD) for another URL. The message does not repeat the URL,
    which may hold a password.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return _open_sqlite(parsed)
        if parsed.get_backend_name() == "postgresql":
            return _open_postgresql(parsed)
    except (ArgumentError, NoSuchModuleError):
        pass
    raise _malformed_url("is neither `sqlite:///<file>` nor `postgresql://<user>@<host>/<database>`")


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database, which need not exist; None for PostgreSQL. Raises as `open_engine`."""
    engine = open_engine(url)
    try:
        return Path(engine.url.database or "") if engine.dialect.name == "sqlite" else None
    finally:
        engine.dispose()


def companion_path(url: str, suffix: str) -> Path:
    """The path for files that belong to a database: next to a SQLite file; for PostgreSQL in the working
    folder, with a name that differs for databases of the same name on different hosts.

    Raises as `open_engine`.
    """
    engine = open_engine(url)
    try:
        database = engine.url.database or ""
        if engine.dialect.name == "sqlite":
            return Path(database + suffix)
        place = repr((engine.url.host, engine.url.port, engine.url.query.get("host"), database))
        digest = hashlib.blake2b(place.encode(), digest_size=4).hexdigest()
        return Path(f"authz-{database or 'postgresql'}-{digest}{suffix}")
    finally:
        engine.dispose()


def _malformed_url(problem: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        ErrorReason.MALFORMED_FIELD,
        f"the database URL {problem}; set AUTHZ_DATABASE_URL",
        field="database_url",
    )


def _open_sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise _malformed_url("names no file, and a database in memory would lose every write")
    if not Path(url.database).absolute().parent.is_dir():
        raise _malformed_url(f"names a file in `{Path(url.database).parent}`, where there is no such folder")
    engine = sa.create_engine(
        url.set(drivername="sqlite+pysqlite"),
        connect_args={"check_same_thread": False} | _without_url_options(url, {"timeout": _LOCK_TIMEOUT_S}),
        poolclass=sa.QueuePool,
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_OVERFLOW,
        pool_timeout=_POOL_TIMEOUT_S,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver must not begin or commit by itself: reads and writes begin differently.
    connection.isolation_level = None
    _enter_wal(connection)
    # In WAL mode, NORMAL may lose the last commits when power fails; FULL keeps acknowledged writes.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _enter_wal(connection: sqlite3.Connection) -> None:
    # The file remembers the mode. If two connections switch a new file at once, SQLite fails one of them
    # immediately: its busy timeout does not apply here.
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_WAL_RETRY_S)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN DEFERRED")


def _open_postgresql(url: URL) -> Engine:
    return sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args=_without_url_options(url, _POSTGRESQL_DEFAULTS),
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_OVERFLOW,
        pool_timeout=_POOL_TIMEOUT_S,
        pool_pre_ping=True,
    )


def _without_url_options(url: URL, defaults: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in defaults.items() if name not in url.query}


@contextmanager
def read_transaction(engine: Engine) -> Iterator[Connection]:
    """Every read in the block sees the same state, that of the first read."""
    options: dict[str, Any] = {}
    if engine.dialect.name == "postgresql":
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with translated(), engine.connect() as pooled:
        connection = pooled.execution_options(**options) if options else pooled
        with connection.begin():
            yield connection


@contextmanager
def write_transaction(engine: Engine) -> Iterator[Connection]:
    """Commits when the block ends, rolls back when it raises.

    On SQLite the writer has the write lock from the start. On PostgreSQL each statement sees what was
    committed before it: lock rows first that must not change.
    """
    options: dict[str, Any] = {_WRITES: True}
    if engine.dialect.name == "postgresql":
        options = {"isolation_level": "READ COMMITTED"}
    with translated(), engine.connect() as pooled, pooled.execution_options(**options).begin():
        yield pooled


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors of the driver inside the block into errors of the tree."""
    try:
        yield
    except (PoolTimeoutError, psycopg.OperationalError, sqlite3.OperationalError) as error:
        raise _unavailable(error) from None
    except DBAPIError as error:
        translated = _translate(error)
        if translated is None:
            raise
        raise translated from error


def _translate(error: DBAPIError) -> AuthzError | None:
    """The error of the tree, or None for a bug in this program."""
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_NOTADB:
            return _malformed_url("names a file that is no SQLite database")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return _conflict()
    elif getattr(cause, "sqlstate", None) in _CONFLICT_SQLSTATES:
        return _conflict()
    elif getattr(cause, "sqlstate", None) == _NO_TABLE_SQLSTATE:
        return _unavailable(cause)  # the database was replaced, or is being restored
    if error.connection_invalidated or isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError):
        return _unavailable(cause)
    if isinstance(error, sa.exc.DataError):
        return InvalidArgumentError(
            ErrorReason.MALFORMED_FIELD,
            "a field holds text that no database can store; remove NUL characters",
        )
    return None


def _conflict() -> ConflictError:
    return ConflictError(ErrorReason.WRITE_CONFLICT, "another write holds the lock; try again")


def _unavailable(cause: object) -> UnavailableError:
    """The driver's message goes into a note: the operator needs it, and no client may see it."""
    error = UnavailableError(ErrorReason.STORE_UNAVAILABLE, "the database does not answer; try again later")
    error.add_note(" ".join(str(cause).split()))
    return error
