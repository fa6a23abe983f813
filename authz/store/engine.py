"""Connections and transactions, alike on SQLite and PostgreSQL, with their errors in the error tree."""

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
_WAL_PAUSE_S = 0.01
_POSTGRESQL_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 5,
    "options": f"-c lock_timeout={_LOCK_TIMEOUT_S}s",
    # A standby may be behind: what is read there as the last revision is one of the past.
    "target_session_attrs": "read-write",
    # A machine that is gone without a word says so in seconds; by default it takes a quarter of an hour.
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""What the URL does not say: https://www.postgresql.org/docs/current/libpq-connect.html."""
_CONFLICT_SQLSTATES = frozenset({"40001", "40P01", "55P03"})
_NO_TABLE_SQLSTATE = "42P01"
_WRITES = "authz_writes"


def open_engine(url: str) -> Engine:
    """An engine for `sqlite:///<file>` or `postgresql://…`; connects when first used.

    Raises `InvalidArgumentError` (MALFORMED_FIELD) for another URL, without repeating it: it may hold
    a password.
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
    """The file of a SQLite database, there or not; None for another one. Raises as `open_engine` does."""
    engine = open_engine(url)
    try:
        return Path(engine.url.database or "") if engine.dialect.name == "sqlite" else None
    finally:
        engine.dispose()


def companion_path(url: str, suffix: str) -> Path:
    """Where files go that belong to a database: beside a SQLite file, else in the working folder, by a name
    that the databases of one name on several hosts do not share.

    Raises as `open_engine` does.
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
        connect_args={"check_same_thread": False} | _unless_said(url, {"timeout": _LOCK_TIMEOUT_S}),
        poolclass=sa.QueuePool,
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_OVERFLOW,
        pool_timeout=_POOL_TIMEOUT_S,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # The driver must not begin or commit by itself: a snapshot and a write begin differently.
    connection.isolation_level = None
    _enter_wal(connection)
    # In WAL, NORMAL may lose the last commits with the power; an acknowledged write may not be lost.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _enter_wal(connection: sqlite3.Connection) -> None:
    # A file stays in this mode, once in it. Of two connections that find a new one at once, SQLite turns one
    # away without the patience that it has for every other lock.
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_WAL_PAUSE_S)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN DEFERRED")


def _open_postgresql(url: URL) -> Engine:
    return sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args=_unless_said(url, _POSTGRESQL_DEFAULTS),
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_OVERFLOW,
        pool_timeout=_POOL_TIMEOUT_S,
        pool_pre_ping=True,
    )


def _unless_said(url: URL, defaults: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in defaults.items() if name not in url.query}


@contextmanager
def read_transaction(engine: Engine) -> Iterator[Connection]:
    """One state of the database, from the first read on, whatever is written meanwhile."""
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

    On SQLite the writer is alone from the start; on PostgreSQL each statement sees what was committed
    before it, so lock first what must stand still.
    """
    options: dict[str, Any] = {_WRITES: True}
    if engine.dialect.name == "postgresql":
        options = {"isolation_level": "READ COMMITTED"}
    with translated(), engine.connect() as pooled, pooled.execution_options(**options).begin():
        yield pooled


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the database says inside the block into errors of the tree."""
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
    """The error of the tree, or None for a fault of this program."""
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
        return _unavailable(cause)  # another database has its name now, or one that is being restored
    if error.connection_invalidated or isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError):
        return _unavailable(cause)
    if isinstance(error, sa.exc.DataError):
        return InvalidArgumentError(
            ErrorReason.MALFORMED_FIELD, "a field holds what no database stores; leave out NUL characters"
        )
    return None


def _conflict() -> ConflictError:
    return ConflictError(ErrorReason.WRITE_CONFLICT, "another write was in the way; try again")


def _unavailable(cause: object) -> UnavailableError:
    """What the driver says goes into a note: the operator needs it, and no client is to see it."""
    error = UnavailableError(ErrorReason.STORE_UNAVAILABLE, "the database does not answer; try again later")
    error.add_note(" ".join(str(cause).split()))
    return error
