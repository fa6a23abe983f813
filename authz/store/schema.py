"""Migrates a database to the schema of this version, or requires that it has it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, func, select

from authz.domain.errors import ErrorReason, FailedPreconditionError
from authz.store.engine import read_transaction, write_transaction

_LOCK_KEY = 0x61757468_7A000001
"""The advisory lock under which one process migrates at a time: "authz", 1."""


def _config() -> Config:
    config = Config()
    # ConfigParser reads `%` as the start of an interpolation.
    folder = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.set_main_option("path_separator", "os")
    return config


def migrate(engine: Engine) -> None:
    """Run the missing migrations in one transaction; does nothing if there are none."""
    if _current(engine) == _newest():
        return
    with write_transaction(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK_KEY)))
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def require_current(engine: Engine) -> None:
    """Raises `FailedPreconditionError` when the schema is not that of this version."""
    current, newest = _current(engine), _newest()
    if current != newest:
        raise FailedPreconditionError(
            ErrorReason.PRECONDITION_FAILED,
            f"the database is at schema `{current or 'none'}` and this version needs `{newest}`; "
            "run `authz migrate`",
            schema=current or "none",
        )


@cache
def _newest() -> str | None:
    return ScriptDirectory.from_config(_config()).get_current_head()


def _current(engine: Engine) -> str | None:
    with read_transaction(engine) as connection:
        return MigrationContext.configure(connection).get_current_revision()
