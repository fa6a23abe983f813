"""Translates errors of drivers into the error tree, by one table for each database.

The driver's message goes into a note of the error: the operator needs it, and no client may see it.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from authz.domain.errors import (
    NO_ANSWER,
    AuthzError,
    ConflictError,
    ErrorReason,
    InvalidArgumentError,
    UnavailableError,
    invalid,
)

_Cause: TypeAlias = tuple[ErrorReason, str]
"""Why a database does not serve, as the caller and the operator are told."""

_NO_ANSWER = (ErrorReason.STORE_UNAVAILABLE, NO_ANSWER)
_FULL = (
    ErrorReason.STORE_FULL,
    "the disk of the database stores no more: it is full, at a limit or failing; free space on it",
)
_READ_ONLY_FILE = (
    ErrorReason.STORE_READ_ONLY,
    "the database is read-only; give the server's user the right to write to its file and its folder",
)
_READ_ONLY = (
    ErrorReason.STORE_READ_ONLY,
    "the database is read-only; name the primary in AUTHZ_DATABASE_URL, and turn off its"
    " `default_transaction_read_only`",
)
_REPLACED = (
    ErrorReason.STORE_REPLACED,
    "the file of the database was deleted or replaced while the server had it open;"
    " put it back, or restart the server to use what is there now",
)
_NO_FILE = (
    ErrorReason.STORE_UNAVAILABLE,
    "the file of the database cannot be opened; give the server's user the right to read and write the file"
    " and its folder",
)
_MISSING_FILE = (
    ErrorReason.STORE_UNAVAILABLE,
    "the file of the database is missing or empty; put it back, or restore a backup with `authz restore`;"
    " only to begin with an empty database, run `authz migrate`",
)
_DAMAGED = (
    ErrorReason.STORE_UNAVAILABLE,
    "the file of the database is damaged, or is no SQLite database; restore it from a backup,"
    " or name another in AUTHZ_DATABASE_URL",
)
_TOO_MANY = (
    ErrorReason.STORE_UNAVAILABLE,
    "the database takes no more connections; raise its `max_connections`, or the `CONNECTION LIMIT` of the"
    " user or the database, or run fewer servers",
)
_NO_TABLES = (
    ErrorReason.STORE_UNAVAILABLE,
    "the database lacks the tables of the service; wait until it is restored, or run `authz migrate`",
)
_NO_RIGHT = (
    ErrorReason.STORE_MISCONFIGURED,
    "the database's user lacks a right that the service needs; as the owner of the database run"
    " `GRANT USAGE, CREATE ON SCHEMA public TO <user>`, or on the schema that its `search_path` names first,"
    " and let the user own the tables of the service",
)
_NO_SCHEMA = (
    ErrorReason.STORE_MISCONFIGURED,
    "the `search_path` of the database's user names no schema that exists and that the user may use; create"
    " it with `CREATE SCHEMA <name> AUTHORIZATION <user>`, or correct the path with `ALTER ROLE <user> SET"
    " search_path`",
)
_TOO_SHORT = (
    ErrorReason.STORE_MISCONFIGURED,
    "the database ended a transaction that took longer than its `transaction_timeout`; set it to 0 with"
    " `ALTER ROLE <user> SET`",
)
_IDLE = (
    ErrorReason.STORE_UNAVAILABLE,
    "the database ended a transaction in which this process did nothing for too long: it was suspended, or"
    " its machine is overloaded; try again, and if neither is so, set `idle_in_transaction_session_timeout`"
    " to 0 with `ALTER ROLE <user> SET`",
)
_NOT_LET_IN = (
    ErrorReason.STORE_MISCONFIGURED,
    "the database refuses the server's user or password; set the user in AUTHZ_DATABASE_URL and the password"
    " in AUTHZ_DATABASE_PASSWORD_FILE, and let the user in in the database's `pg_hba.conf`",
)
_NO_ENTRY = (
    ErrorReason.STORE_MISCONFIGURED,
    "the database's `pg_hba.conf` allows no such connection; allow the user, database, address and encryption"
    " there, or correct `sslmode` in AUTHZ_DATABASE_URL: `require` for TLS, `disable` for none",
)
_NO_DATABASE = (
    ErrorReason.STORE_MISCONFIGURED,
    "there is no such database; name another in AUTHZ_DATABASE_URL, or create it with `CREATE DATABASE`",
)
_POOLER = (
    ErrorReason.STORE_MISCONFIGURED,
    "the pooler in front of the database refuses a start-up option; remove `options` from"
    " AUTHZ_DATABASE_URL, or allow it in PgBouncer's `ignore_startup_parameters`",
)
_POOL_MODE = (
    ErrorReason.STORE_MISCONFIGURED,
    "the pooler in front of the database allows no transactions; set PgBouncer's `pool_mode` to `transaction`"
    " or `session`",
)
_LOST_STATEMENTS = (
    ErrorReason.STORE_MISCONFIGURED,
    "the pooler in front of the database mixes up prepared statements; set PgBouncer's `pool_mode` to"
    " `session`, or its `max_prepared_statements`, which 1.21 and later have, above 0",
)
_OLD_PRIMARY = (
    ErrorReason.STORE_UNAVAILABLE,
    "only an old primary takes writes, which lacks what was written since the failover; stop it, and start"
    " its successor, or restart the server to use the old one",
)
_NO_PASSWORD = (
    ErrorReason.STORE_MISCONFIGURED,
    "the file of the database's password cannot be read; set AUTHZ_DATABASE_PASSWORD_FILE to a text file that"
    " the server's user may read",
)
_BAD_OPTION = (
    ErrorReason.STORE_MISCONFIGURED,
    "AUTHZ_DATABASE_URL, or a variable of libpq such as `PGOPTIONS`, has an option that the driver or the"
    " database does not accept; correct or remove it",
)
_TLS = (
    ErrorReason.STORE_MISCONFIGURED,
    "there is no TLS connection to the database as AUTHZ_DATABASE_URL, or a variable of libpq such as"
    " `PGSSLMODE`, requires it; correct its `sslmode`, `sslrootcert`, `sslcert` and `sslkey`",
)

_BY_SQLITE_CODE = {
    sqlite3.SQLITE_READONLY_DBMOVED: _REPLACED,
    sqlite3.SQLITE_READONLY: _READ_ONLY_FILE,
    sqlite3.SQLITE_FULL: _FULL,
    # What is not ENOSPC, such as a quota or a limit on the size of files, is an error of the write.
    sqlite3.SQLITE_IOERR_WRITE: _FULL,
    sqlite3.SQLITE_IOERR_FSYNC: _FULL,
    sqlite3.SQLITE_IOERR_DIR_FSYNC: _FULL,
    sqlite3.SQLITE_IOERR_TRUNCATE: _FULL,
    sqlite3.SQLITE_IOERR_SHMSIZE: _FULL,
    sqlite3.SQLITE_PERM: _NO_FILE,
    sqlite3.SQLITE_CANTOPEN: _NO_FILE,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}
"""By extended code, else by primary code. Source: https://www.sqlite.org/rescode.html"""
_SQLITE_CONFLICTS = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

_BY_SQLSTATE = {
    "25006": _READ_ONLY,
    "25P03": _IDLE,
    "25P04": _TOO_SHORT,
    "26000": _LOST_STATEMENTS,
    "3D000": _NO_DATABASE,
    "3F000": _NO_SCHEMA,
    "42501": _NO_RIGHT,
    "53100": _FULL,
    "53300": _TOO_MANY,
    "42P01": _NO_TABLES,
    "42P05": _LOST_STATEMENTS,
}
"""Source: https://www.postgresql.org/docs/current/errcodes-appendix.html"""
_QUERY_CANCELED = "57014"
_CONNECTION_CLASS = "08"
"""PgBouncer gives `08P01` for all that it refuses."""
_SQLSTATE_CONFLICTS = frozenset({"40001", "40P01", "55P03"})

_BY_TEXT = (
    ("password authentication failed", _NOT_LET_IN),
    ("no password supplied", _NOT_LET_IN),
    ("authentication failed", _NOT_LET_IN),
    ("pg_hba.conf", _NO_ENTRY),
    ("is not permitted to log in", _NOT_LET_IN),
    ("permission denied for database", _NOT_LET_IN),
    ("unsupported startup parameter", _POOLER),
    ("statement pooling mode", _POOL_MODE),
    ("unrecognized configuration parameter", _BAD_OPTION),
    ("invalid connection option", _BAD_OPTION),
    ("definition of service", _BAD_OPTION),
    ("connection is bad: invalid", _BAD_OPTION),
    ("invalid integer value", _BAD_OPTION),
    ("invalid value for parameter", _BAD_OPTION),
    ("requires a value", _BAD_OPTION),
    ("bad value for", _BAD_OPTION),
    ("could not parse network address", _BAD_OPTION),
    ("encryption required but", _BAD_OPTION),
    ("method requirement", _BAD_OPTION),
    ("requirepeer", _BAD_OPTION),
    ("weak sslmode", _TLS),
    ("channel binding required", _TLS),
    ("private key file", _TLS),
    ("no such database", _NO_DATABASE),
    ("certificate", _TLS),
    ("does not support SSL", _TLS),
    # How one side of TLS refuses the other, and how OpenSSL refuses what the server chose.
    (" alert ", _TLS),
    ("unsupported protocol", _TLS),
    ("too many c", _TOO_MANY),
    ("connection slots are reserved", _TOO_MANY),
    ("session is read-only", _READ_ONLY),
    ("server is in hot standby mode", _READ_ONLY),
    ("session is not read-only", _BAD_OPTION),
    ("server is not in hot standby mode", _BAD_OPTION),
    ("only an old primary takes writes", _OLD_PRIMARY),
)
"""For connections that fail: libpq gives no SQLSTATE for them, and PgBouncer the same for all. A server that
speaks another language than English gets the general message. PgBouncer writes `no such database`."""
_NO_ROLE_OR_DATABASE = ((' role "', _NOT_LET_IN), (' database "', _NO_DATABASE))
_SEVERAL = "Multiple connection attempts failed"


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors of the driver inside the block into errors of the tree."""
    try:
        yield
    except (sqlite3.Error, *_errors_of_psycopg()) as error:
        translated = _translate(error)
        if translated is None:
            raise
        raise translated from None
    except PoolTimeoutError as error:
        raise _unavailable(_NO_ANSWER, error) from None
    except DBAPIError as error:
        translated = _translate_wrapped(error)
        if translated is None:
            raise
        raise translated from error


def was_cancelled(error: BaseException | None) -> bool:
    """Whether the database cancelled a statement, as it does at the end of its time."""
    if getattr(error, "sqlstate", None) == _QUERY_CANCELED:
        return True
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT


def require_unmoved(is_unmoved: bool) -> None:
    """Raise `UnavailableError` (STORE_REPLACED) unless the file of a database is the one that was opened."""
    if not is_unmoved:
        raise UnavailableError(*_REPLACED)


def missing_file() -> UnavailableError:
    """The error for a database whose file is not there, or has nothing in it."""
    return UnavailableError(*_MISSING_FILE)


def missing_tables() -> UnavailableError:
    """The error for a database that has no tables."""
    return UnavailableError(*_NO_TABLES)


def unreadable_password(error: Exception) -> UnavailableError:
    """The error for a file of the password that cannot be read."""
    return _unavailable(_NO_PASSWORD, error)


def malformed_url(problem: str) -> InvalidArgumentError:
    """The error for a database URL that names no database. Does not repeat the URL, which may hold a
    password."""
    return invalid("database_url", f"the database URL {problem}; set --database or AUTHZ_DATABASE_URL")


def _translate_wrapped(error: DBAPIError) -> AuthzError | None:
    """The error of the tree for an error of SQLAlchemy, or None for a bug in this program."""
    found = _translate(error.orig)
    if found is not None:
        return found
    if error.connection_invalidated or isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError):
        return _unavailable(_NO_ANSWER, error.orig)
    return None


def _translate(error: BaseException | None) -> AuthzError | None:
    """The error of the tree for an error of a driver, or None for a bug in this program."""
    if isinstance(error, sqlite3.DataError):
        return _text_not_stored()
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0)
        if code & 0xFF in _SQLITE_CONFLICTS:
            return _conflict()
        cause = _BY_SQLITE_CODE.get(code) or _BY_SQLITE_CODE.get(code & 0xFF)
        is_operational = isinstance(error, sqlite3.OperationalError)
    elif isinstance(error, _errors_of_psycopg()):
        if error.sqlstate in _SQLSTATE_CONFLICTS:
            return _conflict()
        if isinstance(error, sys.modules["psycopg"].DataError):
            return _text_not_stored()
        is_of_connection = not error.sqlstate or error.sqlstate.startswith(_CONNECTION_CLASS)
        cause = _cause_in(str(error)) if is_of_connection else _BY_SQLSTATE.get(error.sqlstate or "")
        is_operational = isinstance(error, sys.modules["psycopg"].OperationalError)
    else:
        return None
    if cause is None and is_operational:
        cause = _NO_ANSWER
    return None if cause is None else _unavailable(cause, error)


def _errors_of_psycopg() -> tuple[Any, ...]:
    """The base of psycopg's errors, or nothing before psycopg is imported: it takes a tenth of the start of a
    server, and only a server on PostgreSQL imports it."""
    psycopg = sys.modules.get("psycopg")
    return () if psycopg is None else (psycopg.Error,)


def _cause_in(text: str) -> _Cause | None:
    """The cause that a failed connection names."""
    found = next((cause for words, cause in _BY_TEXT if words in text), None)
    if found is None and "does not exist" in text:
        found = next((cause for words, cause in _NO_ROLE_OR_DATABASE if words in text), None)
    # While a standby is promoted, one of several hosts is read-only and the others are away.
    return None if found is _READ_ONLY and _SEVERAL in text else found


def _conflict() -> ConflictError:
    return ConflictError("another write holds the lock; try again")


def _text_not_stored() -> InvalidArgumentError:
    return InvalidArgumentError(
        ErrorReason.MALFORMED_FIELD,
        "a field holds text that the database cannot store; remove NUL characters, and those that the"
        " encoding of the database lacks",
    )


def _unavailable(cause: _Cause, error: object) -> UnavailableError:
    found = UnavailableError(*cause)
    found.add_note(" ".join(str(error).split()))
    return found
