"""The schema's history, kept with the code that needs it."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from authz.domain.errors import ErrorReason, UnavailableError
from authz.store.engine import read_transaction, write_transaction

_LOCK_KEY = 0x61757468_7A000001
"""The advisory lock that lets one process migrate at a time: "authz", 1."""


def migrate(engine: Engine) -> None:
    """Bring the schema up to date, in one transaction. Safe to call again, and from many processes."""
    if is_current(engine):
        return
    with write_transaction(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def is_current(engine: Engine) -> bool:
    """Whether the schema is the one that this code was written for."""
    with read_transaction(engine) as connection:
        return _stored_heads(connection) == set(ScriptDirectory.from_config(_config()).get_heads())


def require_current(engine: Engine) -> None:
    """Raises `UnavailableError` (STORE_UNAVAILABLE) for a schema that is older or newer than the code."""
    if not is_current(engine):
        raise UnavailableError(
            ErrorReason.STORE_UNAVAILABLE,
            "the database schema is not the one that this version needs; migrate it with this version",
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _stored_heads(connection: Connection) -> set[str]:
    return set(MigrationContext.configure(connection).get_current_heads())
