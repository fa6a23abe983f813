"""Migrates a database to the schema of this version, or requires that it has it."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec
import structlog
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    func,
    insert,
    inspect,
    select,
)

from authz.domain.entities import PLATFORM_ACTIVATION
from authz.domain.errors import (
    AuthzError,
    ConflictError,
    FailedPreconditionError,
    UnusablePolicyError,
    precondition_failed,
)
from authz.domain.instants import Instant
from authz.domain.mutations import WriteRequest
from authz.domain.origin import Origin
from authz.store import tables
from authz.store.bulk import select_by_key
from authz.store.database.engine import allow_idle, read_transaction, write_transaction
from authz.store.database.failures import missing_tables
from authz.store.privacy.holds import read_holds
from authz.store.rows import ENTITY_ROWS
from authz.store.write import Transaction

if TYPE_CHECKING:
    # Importing it takes a fifth of a start, and a database whose schema is current needs none of it.
    from alembic.config import Config

log = structlog.get_logger()

_MIGRATIONS = Path(__file__).parent / "migrations"
_NUMBER = re.compile(r"[0-9]{4}")
"""What the revisions of the migrations are. Those that Alembic makes for other programs are longer."""
_LOCK_KEY = 0x61757468_7A000001
"""The advisory lock under which one process migrates at a time: "authz", 1."""
_TURN_INTERVAL_S = 0.2
_IDLE_TIMEOUT_S = 60.0
"""How long a migration or a restore may compute between two statements."""
_ID_BYTES = 16
_KEY_BYTES = 32
_HOLDS_FOUND = Origin("authz migrate", "these holds were there before the change log had holds")
_VERSION = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""Where Alembic keeps the revision of the last migration."""


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    # ConfigParser reads `%` as the start of an interpolation.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


class FirstWrite(msgspec.Struct, frozen=True):
    """What makes a migrated database usable: the write of its first policy, at the time of `clock`."""

    request: WriteRequest
    clock: Callable[[], Instant]


def migrate(engine: Engine, first: FirstWrite | None = None) -> None:
    """Run the missing migrations and, unless a policy is active, make the first write, in one transaction.

    Does nothing if neither is missing. Raises `FailedPreconditionError` for a database of a newer release, of
    one that is too old, or of another program, and `ConflictError` if somebody else's transaction holds a
    table for ten seconds.
    """
    with read_transaction(engine) as connection:
        current = _schema_in(connection)
        _require_known(current)
        if current == newest_schema() and (first is None or _has_policy(connection)):
            return
    try:
        with write_transaction(engine) as connection:
            migrate_within(connection)
            if first is not None and not _has_policy(connection):
                _write_first(connection, first)
    except ConflictError as error:
        raise ConflictError(
            "another transaction, such as that of a backup, holds what the migration changes; nothing is"
            " migrated: try again when it has ended"
        ) from error


def migrate_within(connection: Connection) -> None:
    """Run the missing migrations in a transaction that writes: nobody sees them before it is committed.

    Raises as `migrate`.
    """
    if connection.dialect.name == "postgresql":
        _await_turn(connection)
        allow_idle(connection, _IDLE_TIMEOUT_S)
    schema = _schema_in(connection)
    _require_known(schema)
    if schema is None:
        _create(connection)
    elif schema != newest_schema():
        _upgrade(connection)
        _log_holds(connection)


def _await_turn(connection: Connection) -> None:
    """Wait, without the timeout that other locks have: another process may migrate, or restore, for long."""
    turn = select(func.pg_try_advisory_xact_lock(_LOCK_KEY))
    is_told = False
    while not connection.scalar(turn):
        if not is_told:
            log.warning("another process migrates or restores this database; waiting until it is done")
        is_told = True
        time.sleep(_TURN_INTERVAL_S)


def _create(connection: Connection) -> None:
    """Make the tables as they are now. All migrations one after another would take ten times as long.

    Source: https://alembic.sqlalchemy.org/en/latest/cookbook.html#building-an-up-to-date-database-from-scratch
    """
    _require_no_table(connection)
    tables.metadata.create_all(connection)
    identity = {"database_id": secrets.token_hex(_ID_BYTES), "token_key": secrets.token_hex(_KEY_BYTES)}
    connection.execute(insert(tables.counter).values(only=1, revision=0, **identity))
    signed = {"note": "", "size": 0, "next_at": 0}
    connection.execute(insert(tables.checkpoints).values(only=1, **signed))
    connection.execute(insert(tables.decision_tree).values(only=1, size=0))
    _VERSION.create(connection)
    connection.execute(insert(_VERSION).values(version_num=newest_schema()))


def _upgrade(connection: Connection) -> None:
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def nothing_is_active(*_: object) -> NoReturn:
    """Stands for the vocabularies where no write needs one."""
    raise UnusablePolicyError("no policy is active")


def _log_holds(connection: Connection) -> None:
    """Log the holds of schema 0032, which were in no change log: they have no revision yet."""
    found = [each.entity for each in read_holds(connection) if not each.revision]
    if found:
        transaction = Transaction(connection, nothing_is_active, lambda: time.time_ns() // 1000)
        with transaction.revision(_HOLDS_FOUND) as batch:
            batch.rewrite(found)


def _write_first(connection: Connection, first: FirstWrite) -> None:
    (outcome,) = Transaction(connection, nothing_is_active, first.clock).write([first.request])
    if isinstance(outcome, AuthzError):
        raise outcome


def _has_policy(connection: Connection) -> bool:
    stored = ENTITY_ROWS["policy_activation"]
    key = stored.key_values(PLATFORM_ACTIVATION)
    return bool(select_by_key(connection, stored.table, [key]))


def require_tables(engine: Engine) -> None:
    """Raises `UnavailableError` for a database that was never migrated, or has lost everything."""
    if current_schema(engine) is None:
        raise missing_tables()


def require_current(engine: Engine) -> None:
    """Raises `FailedPreconditionError` when the schema is not that of this version, as `migrate` where that
    would refuse it."""
    newest = newest_schema()
    with read_transaction(engine) as connection:
        current = _schema_in(connection)
        if current is None:
            _require_no_table(connection)
    _require_known(current)
    if current != newest:
        # Only a backup undoes a migration, and this release cannot make one of an older schema.
        first = "make a backup with the release that you ran so far, then " if current else ""
        raise precondition_failed(
            f"the database is at schema `{current or 'none'}` and this version needs `{newest}`; "
            f"{first}run `authz migrate`",
            schema=current or "none",
        )


def _require_no_table(connection: Connection) -> None:
    """Raise `FailedPreconditionError` if a database without a schema has a table of a name that it needs."""
    taken = tables.metadata.tables.keys() & {*inspect(connection).get_table_names()}
    if taken:
        raise _foreign(f"the table `{min(taken)}`")


def _foreign(found: str) -> FailedPreconditionError:
    return precondition_failed(
        f"the database has {found} of another program; give this service a database of its own"
    )


def _require_known(current: str | None) -> None:
    newest = newest_schema()
    if current is not None and _NUMBER.fullmatch(current) is None:
        raise _foreign(f"the schema `{current}`")
    if current is not None and current > newest:
        raise precondition_failed(
            f"the database is at schema `{current}`, of a newer release than this one, which knows"
            f" `{newest}`; run that release, or restore a backup from before the upgrade into an empty"
            " database",
            schema=current,
        )
    if current is not None and current < (oldest := min(_schemas())):
        raise precondition_failed(
            f"the database is at schema `{current}`, and this version migrates schema `{oldest}` or newer;"
            " run a version in between first",
            schema=current,
        )


def newest_schema() -> str:
    """The revision of the last migration."""
    return max(_schemas())


@cache
def _schemas() -> frozenset[str]:
    """The revisions of the migrations. Their files end with them, and they are numbers."""
    files = (_MIGRATIONS / "versions").glob("*_[0-9][0-9][0-9][0-9].py")
    return frozenset(file.stem[-4:] for file in files)


def current_schema(engine: Engine) -> str | None:
    """The revision of the last migration that a database has had; None for one without tables."""
    with read_transaction(engine) as connection:
        return _schema_in(connection)


def _schema_in(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSION.name):
        return None
    found: str | None = connection.scalar(select(_VERSION))
    return found
