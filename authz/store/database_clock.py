"""The clock of the database, so that a machine whose clock is ahead purges nothing early."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, literal_column, select

from authz.domain.instants import Instant

_NOW_US: dict[str, Select[tuple[Any]]] = {
    "postgresql": select(literal_column("CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")),
    "sqlite": select(literal_column("CAST(strftime('%s', 'now') AS integer) * 1000000")),
}


def now_by(connection: Connection, now: Instant) -> Instant:
    """The earlier of a time and that of the database's clock."""
    found: Instant = connection.execute(_NOW_US[connection.dialect.name]).scalar_one()
    return min(now, found)
