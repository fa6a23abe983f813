"""Connections and transactions on SQLite and PostgreSQL."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import Connection, CursorResult, Engine, Select, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from authz.domain.errors import OverloadedError
from authz.store.database.failures import malformed_url, translated, unreadable_password, was_cancelled
from authz.store.database.file import SIDE_FILES, DatabaseFile

if TYPE_CHECKING:
    from authz.store.database.primary import Primary

_POOL_SIZE = 10
_POOL_OVERFLOW = 20
_POOL_TIMEOUT_S = 10
_LOCK_TIMEOUT_S = 10
_READ_TIMEOUT_S = 5.0
_READ_AGAIN_AFTER_S = 1.0
_IDLE_TIMEOUT_S = 5.0
"""How long the database waits for the next statement of a write: not as long as others wait for its lock. A
server that is suspended in a write, or vanished behind PgBouncer, would else block all other writes."""
_PREPARING_EXECUTIONS = 7
"""More than after which psycopg prepares a statement. Source: psycopg's documentation, `prepare_threshold`"""
_STEPS_PER_CHECK = 10_000
"""Instructions of SQLite between two checks of the deadline: less than a millisecond."""
_WAL_RETRY_S = 0.01
_POSTGRESQL_DEFAULTS: dict[str, Any] = {
    "connect_timeout": 5,
    # A standby may be behind: the head that is read there may be an old one.
    "target_session_attrs": "read-write",
    # Also for a database of another encoding, such as one that was made without a locale.
    "client_encoding": "utf8",
    # Notice within seconds that a host has vanished; by default that takes a quarter of an hour.
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""Defaults for what the URL leaves out. Source: https://www.postgresql.org/docs/current/libpq-connect.html"""
_OF_TRANSACTION = "SET LOCAL enable_seqscan = off; SET LOCAL jit = off; SET LOCAL statement_timeout = 0"
"""Reads a table as a whole only where no index serves. A connection keeps the plan of a statement, and one
made while a table was small reads all of it for each write, until PostgreSQL analyzes the table again.

Before version 18, PostgreSQL gives such a whole read a cost for which it compiles the statement (JIT), which
takes 0.2 s and more.

A `statement_timeout` of the user or the database, made for people, would end migrations, backups and the
build of a replica.

Not a start-up option, which PgBouncer refuses, and not of the connection, which PgBouncer may share."""
_WRITES, _FILE = "authz_writes", "authz_file"


def open_engine(url: str, password_file: str = "", *, create: bool = False) -> Engine:
    """An engine for `sqlite:///<file>` or `postgresql://…`; connects when first used.

    `password_file` has the password for PostgreSQL; it is read for each connection. With `create`, makes a
    SQLite file that is missing; else a connection then raises `UnavailableError` (STORE_UNAVAILABLE). Raises
    `InvalidArgumentError` (MALFORMED_FIELD) for another URL. The message does not repeat the URL, which may
    hold a password.
    """
    parsed = _parse(url)
    if _is_postgresql(parsed):
        return _open_postgresql(parsed, password_file)
    return _open_sqlite(parsed, DatabaseFile(Path(parsed.database or ""), create=create))


@contextmanager
def opened(url: str, password_file: str = "", *, create: bool = False) -> Iterator[Engine]:
    """As `open_engine`; closes all connections when the block ends."""
    engine = open_engine(url, password_file, create=create)
    if engine.dialect.name == "postgresql":
        event.listen(engine, "do_connect", _connect_to_newest())
    try:
        yield engine
    finally:
        engine.dispose()


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database, which need not exist; None for PostgreSQL. Raises as `open_engine`."""
    parsed = _parse(url)
    return None if _is_postgresql(parsed) else Path(parsed.database or "")


def sqlite_files(url: str) -> tuple[Path, ...]:
    """As `sqlite_file`, with the files that are kept next to it while it is open; none for PostgreSQL."""
    file = sqlite_file(url)
    return () if file is None else (file, *(file.with_name(file.name + each) for each in SIDE_FILES))


def has_password(url: str) -> bool:
    """Whether the URL itself has the password of the database. Raises as `open_engine`."""
    parsed = _parse(url)
    return bool(parsed.password or parsed.query.get("password"))


def primaries(url: str, password_file: str = "") -> list[Primary]:
    """The hosts of PostgreSQL that take writes; none for SQLite. Raises as `open_engine`."""
    parsed = _parse(url)
    if not _is_postgresql(parsed):
        return []
    from authz.store.database.primary import find_primaries

    with opened(url, password_file) as engine:
        _, options = engine.dialect.create_connect_args(parsed)
    given = {**options, **_without_url_options(parsed, _POSTGRESQL_DEFAULTS)}
    if password_file:
        given["password"] = _read_password(password_file)
    return list(find_primaries(given))


def require_own_statements(url: str, password_file: str = "") -> None:
    """Raise `UnavailableError` (STORE_MISCONFIGURED) if a pooler mixes up the prepared statements of two
    connections, which a server meets only after a while. Raises as `open_engine`."""
    with opened(url, password_file) as engine, translated(), engine.connect() as one, engine.connect() as two:
        for number, each in enumerate((one, two) * _PREPARING_EXECUTIONS):
            with each.begin():
                each.exec_driver_sql(f"SELECT {number % 2}")


def database_name(url: str) -> str:
    """The same for all URLs of one user's database, whatever their options, and without a password.

    Raises as `open_engine`.
    """
    parsed = _parse(url)
    if not _is_postgresql(parsed):
        return f"sqlite {Path(parsed.database or '').absolute()}"
    who = (parsed.username, parsed.query.get("user"))
    return " ".join(map(str, ("postgresql", *who, *_place(parsed))))


def companion_path(url: str, suffix: str) -> Path:
    """The path for files that belong to a database: next to a SQLite file; for PostgreSQL in the working
    folder, with a name that differs for databases of the same name on different hosts.

    Raises as `open_engine`.
    """
    parsed = _parse(url)
    database = parsed.database or ""
    if not _is_postgresql(parsed):
        return Path(database + suffix)
    digest = hashlib.blake2b(repr(_place(parsed)).encode(), digest_size=4).hexdigest()
    return Path(f"authz-{database or 'postgresql'}-{digest}{suffix}")


def _place(url: URL) -> tuple[object, ...]:
    """Where a database of PostgreSQL is: libpq takes each part of it from the options, too."""
    options = (url.query.get(name) for name in ("host", "hostaddr", "port", "dbname", "service"))
    return (url.host, url.port, url.database, *options)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError):
        backend = ""
    except ValueError:
        raise malformed_url(
            "has a port that is not a number; several hosts are `?host=db1:5432&host=db2:5432`"
        ) from None
    if backend == "postgresql":
        as_written = make_url(url.replace("%40", ""))
        if "@" in f"{as_written.host}{as_written.database}":
            # Else a part of the password is taken for the host, and shown in errors.
            raise malformed_url("has a second `@`; in a password write `%40` for `@` and `%2F` for `/`")
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        _require_file(parsed.database, parsed.query.get("mode"))
        for option in set(parsed.query) - {"timeout"}:
            raise malformed_url(f"has the option `{option}`; for SQLite there is only `timeout`")
        return parsed.set(drivername="sqlite+pysqlite")
    raise malformed_url("is neither `sqlite:///<file>` nor `postgresql://<user>@<host>/<database>`")


def _is_postgresql(url: URL) -> bool:
    return url.get_backend_name() == "postgresql"


def _require_file(database: str | None, mode: object) -> None:
    if not database or database in (":memory:", "file::memory:") or mode == "memory":
        raise malformed_url(
            "names no file, and a database in memory would lose every write (for tests: `authz serve"
            " --memory`)"
        )
    if database.startswith("file:"):
        # To SQLAlchemy a URI only with the option `uri`, else a file whose name begins so.
        raise malformed_url("names a URI of SQLite; write the path of the file without `file:`")
    if not os.access(Path(database).absolute().parent, os.X_OK):
        raise malformed_url(
            f"names a file in `{Path(database).parent}`, where there is no such folder, or none that this"
            " user may enter"
        )
    if Path(database).is_dir():
        raise malformed_url(f"names `{database}`, which is a folder; name a file in it")


def _create_engine(url: URL, **options: Any) -> Engine:
    try:
        return sa.create_engine(url, **options)
    except (ArgumentError, ValueError) as error:
        raise malformed_url(f"has an option that cannot be read ({error})") from None


def _open_sqlite(url: URL, file: DatabaseFile) -> Engine:
    engine = _create_engine(
        url,
        connect_args={"check_same_thread": False} | _without_url_options(url, {"timeout": _LOCK_TIMEOUT_S}),
        poolclass=sa.QueuePool,
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_OVERFLOW,
        pool_timeout=_POOL_TIMEOUT_S,
    )
    engine.update_execution_options(**{_FILE: file})
    event.listen(engine, "do_connect", lambda *_: file.prepare())
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "connect", lambda *_: file.hold())
    event.listen(engine, "engine_disposed", lambda _: file.release())
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
    options = connection.get_execution_options()
    file: DatabaseFile = options[_FILE]
    file.require_in_place()
    if not options.get(_WRITES, False):
        connection.exec_driver_sql("BEGIN DEFERRED")
        return
    with file.next_to_write():
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _open_postgresql(url: URL, password_file: str) -> Engine:
    if password_file and url.password is not None:
        raise malformed_url("has a password, and AUTHZ_DATABASE_PASSWORD_FILE is set; leave out one of them")
    engine = _create_engine(
        url,
        connect_args=_without_url_options(url, _POSTGRESQL_DEFAULTS),
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_OVERFLOW,
        pool_timeout=_POOL_TIMEOUT_S,
        pool_pre_ping=True,
        isolation_level="READ COMMITTED",
    )
    if password_file:
        event.listen(
            engine,
            "do_connect",
            lambda _dialect, _record, _given, options: options.update(password=_read_password(password_file)),
        )
    return engine


def _connect_to_newest() -> Callable[..., Any]:
    """What connects for the pool of a command, in place of the driver. For a server, see `connections`."""
    from psycopg import Connection as DriverConnection

    from authz.store.database.primary import NewestPrimary

    primary = NewestPrimary(DriverConnection.connect)
    return lambda _dialect, _record, _given, options: primary.connect(options)


def _read_password(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable_password(error) from None


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
            if options:
                connection.exec_driver_sql(_OF_TRANSACTION)
            yield connection


def stream(connection: Connection, statement: Select[Any], rows_at_once: int = 1000) -> CursorResult[Any]:
    """The rows of a statement, read from the database in bounded parts."""
    return connection.execute(statement, execution_options={"yield_per": rows_at_once})


@contextmanager
def bounded_read_transaction(engine: Engine) -> Iterator[Connection]:
    """As `read_transaction`. Raises `OverloadedError` if a statement takes longer than five seconds."""
    with read_transaction(engine) as connection, _time_limit(connection, _READ_TIMEOUT_S):
        try:
            yield connection
        except DBAPIError as error:
            if not was_cancelled(error.orig):
                raise
            raise OverloadedError(
                f"the database did not finish the read within {_READ_TIMEOUT_S:g} s;"
                " ask for a smaller page or narrow the filter, or try again later",
                retry_after_s=_READ_AGAIN_AFTER_S,
                limit=f"{_READ_TIMEOUT_S:g}",
            ) from None


@contextmanager
def _time_limit(connection: Connection, limit_s: float) -> Iterator[None]:
    """Let the database cancel a statement in the block that takes longer; on SQLite, than the whole block."""
    driver: Any = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        # Not of the connection, whose commits nothing may cancel.
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {round(limit_s * 1000)}")
        yield
        return
    end_at = time.monotonic() + limit_s
    driver.set_progress_handler(lambda: time.monotonic() > end_at, _STEPS_PER_CHECK)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)


def allow_idle(connection: Connection, limit_s: float) -> None:
    """Let the rest of a write compute for longer between two statements."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_idle_timeout(limit_s))


def _idle_timeout(limit_s: float) -> str:
    return f"SET LOCAL idle_in_transaction_session_timeout = {round(limit_s * 1000)}"


@contextmanager
def write_transaction(engine: Engine) -> Iterator[Connection]:
    """Commits when the block ends, rolls back when it raises.

    On SQLite the writer has the write lock from the start. On PostgreSQL each statement sees what was
    committed before it: lock rows first that must not change. Raises `UnavailableError` (STORE_REPLACED) if
    the file that was committed to is no longer that of the database.
    """
    with translated(), engine.connect() as pooled, pooled.execution_options(**{_WRITES: True}).begin():
        if engine.dialect.name == "postgresql":
            is_set = "lock_timeout" in str(engine.url.query.get("options"))
            of_write = [_OF_TRANSACTION, _idle_timeout(_IDLE_TIMEOUT_S)]
            if not is_set:
                of_write.append(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s'")
            pooled.exec_driver_sql("; ".join(of_write))
        yield pooled
    file: DatabaseFile | None = engine.get_execution_options().get(_FILE)
    if file is not None:
        file.require_in_place()
