"""Copies a database, at one revision while others write, into a file, and such a file into a database.

The file is a SQLite database with the schema of the release that made it: it can be served, and can be
restored into either kind of database.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, select

from authz.domain.erasures import ErasureList
from authz.domain.errors import ErrorReason, UnavailableError, invalid, malformed, precondition_failed
from authz.domain.instants import Instant
from authz.store import open_store
from authz.store.database.connections import expecting_long_statements
from authz.store.database.engine import opened, read_transaction, sqlite_files, stream, write_transaction
from authz.store.database.file import SIDE_FILES
from authz.store.log.reader import read_head
from authz.store.privacy.restored_erasures import begin_missing
from authz.store.schema import (
    current_schema,
    migrate,
    migrate_within,
    newest_schema,
    nothing_is_active,
    require_current,
)
from authz.store.tables import metadata
from authz.store.write import Transaction

_MODE = 0o600
_MAGIC = b"SQLite format 3\0"


def back_up(url: str, file: Path, *, password_file: str = "") -> int:
    """Copy a database into a new file, which only its owner may read; return the revision that it holds.

    Others may read and write meanwhile. Raises `InvalidArgumentError` if the file is there, and as
    `open_store` does; then no file is left.
    """
    if file.exists():
        raise malformed("FILE", f"`{file}` is there; name another, or move it away")
    if not file.parent.is_dir():
        raise malformed("FILE", f"is in `{file.parent}`, which is no folder; make it, or name another")
    if file.resolve() in {path.resolve() for path in sqlite_files(url)}:
        raise malformed("FILE", f"`{file}` is for the database itself; name another")
    partial = file.with_name(f"{file.name}.partial")
    try:
        with opened(url, password_file) as engine:
            require_current(engine)
            partial.unlink(missing_ok=True)
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE))
            with _written_next_to(file):
                revision = _copy_all(engine, partial)
        partial.rename(file)
    finally:
        for left in ("", *SIDE_FILES):
            Path(f"{partial}{left}").unlink(missing_ok=True)
    return revision


def restore(
    file: Path,
    url: str,
    *,
    password_file: str = "",
    erasures: ErasureList | None = None,
    clock: Callable[[], Instant] = lambda: 0,
) -> int:
    """Copy a backup into an empty database, all of it or nothing; return the revision that it holds.

    A backup of an older release is migrated on the way. With `erasures`, those that the backup lacks are
    begun with the copy, and done before this returns. Raises `InvalidArgumentError` for a file that is no
    backup and for erasures of another database, and `FailedPreconditionError` for a backup of a newer release
    and for a database that is not empty.
    """
    with (
        _readable(file) as source,
        opened(url, password_file, create=True) as engine,
        read_transaction(source) as given,
        write_transaction(engine) as taken,
    ):
        # In the same transaction: a server that runs would register its replica in an empty database, and
        # one that starts would write the first policy.
        migrate_within(taken)
        if read_head(taken).revision:
            raise precondition_failed(
                "the database is not empty; restore into a new one, and let the servers use that"
            )
        _copy(given, taken)
        if erasures is not None:
            _begin_erasures(taken, erasures, clock)
        revision = read_head(taken).revision
    return revision if erasures is None else _finish_erasures(url, password_file, clock)


def _begin_erasures(connection: Connection, given: ErasureList, clock: Callable[[], Instant]) -> None:
    database_id = read_head(connection).database_id
    if given.database_id != database_id:
        raise malformed(
            "--erasures",
            f"is of the database {given.database_id}, and the backup is of {database_id}; name the file that"
            " `authz privacy erasures --export` wrote for this one",
        )
    begin_missing(Transaction(connection, nothing_is_active, clock), given.erasures)


def _finish_erasures(url: str, password_file: str, clock: Callable[[], Instant]) -> int:
    """Take every step that is left; return the last revision."""
    store = open_store(url, vocabularies=nothing_is_active, clock=clock, password_file=password_file)
    with closing(store):
        while store.personal_data.erasure_progress() is not None:
            store.directory.remove_contents()  # for which an erasure waits
            store.personal_data.advance_erasure()
        return store.directory.head().revision


@contextmanager
def _written_next_to(file: Path) -> Iterator[None]:
    """Name the folder whose disk is full: it is not that of the database."""
    try:
        yield
    except UnavailableError as error:
        if error.reason is not ErrorReason.STORE_FULL:
            raise
        raise UnavailableError(
            error.reason,
            f"the disk of `{file.absolute().parent}` stores no more: it is full, at a limit or failing; free"
            " space on it, or use another folder",
        ) from error


def _copy_all(engine: Engine, partial: Path) -> int:
    with opened(f"sqlite:///{partial}", create=True) as copy:
        migrate(copy)
        with (
            read_transaction(engine) as source,
            expecting_long_statements(source),
            write_transaction(copy) as target,
        ):
            _copy(source, target)
            revision = read_head(target).revision
    _close_log(partial)
    return revision


def _copy(source: Connection, target: Connection) -> None:
    for table in reversed(metadata.sorted_tables):
        target.execute(table.delete())
    for table in metadata.sorted_tables:
        for chunk in stream(source, select(table)).partitions():
            target.execute(table.insert(), [dict(row._mapping) for row in chunk])


def _close_log(file: Path) -> None:
    """Merge the write-ahead log into the file, and flush it to the disk."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    with file.open("rb") as written:
        os.fsync(written.fileno())


@contextmanager
def _readable(file: Path) -> Iterator[Engine]:
    """A backup of the schema of this release: itself, or a migrated copy of it."""
    with tempfile.TemporaryDirectory(prefix="authz-restore-", dir=file.absolute().parent) as folder:
        engine = _open_backup(file)
        try:
            version = current_schema(engine) or ""
            if version > newest_schema():
                raise precondition_failed(
                    f"`{file}` is of a newer release (schema {version}); restore it with that release"
                )
            if version < newest_schema():
                engine.dispose()
                copy = Path(folder) / "migrated.db"
                shutil.copyfile(file, copy)
                with _written_next_to(file), opened(f"sqlite:///{copy}") as old:
                    migrate(old)
                _close_log(copy)
                engine = _open_backup(copy)
            yield engine
        finally:
            engine.dispose()


def _open_backup(file: Path) -> Engine:
    """An engine that only reads. Raises `InvalidArgumentError` for a file that is no whole backup."""
    try:
        with file.open("rb") as read:
            is_sqlite = read.read(len(_MAGIC)) == _MAGIC
    except OSError as error:
        raise malformed("FILE", f"`{file}` cannot be read: {error.strerror}") from None
    if Path(f"{file}-wal").exists():
        raise malformed("FILE", f"`{file}` is a database in use; make a backup of it with `authz backup`")
    uri = f"file:{quote(str(file.absolute()))}?mode=ro&immutable=1"
    if is_sqlite:
        with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(uri, uri=True)) as connection:
            is_whole = connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
            counts = "(SELECT count(*) FROM alembic_version), (SELECT count(*) FROM counter)"
            if is_whole and connection.execute(f"SELECT {counts}").fetchone() == (1, 1):
                return create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True))
    raise invalid("FILE", f"`{file}` is no whole backup; make one with `authz backup`")
