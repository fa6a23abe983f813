"""Keeps the newest signed checkpoint."""

from __future__ import annotations

from sqlalchemy import Engine, select, update

from authz.domain.checkpoints import Checkpoints, SignedCheckpoint
from authz.store.engine import read_transaction, write_transaction
from authz.store.tables import checkpoints as table

_FIELDS = SignedCheckpoint.__struct_fields__


class SqlCheckpoints(Checkpoints):
    """A `Checkpoints` in SQLite or PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def newest(self) -> SignedCheckpoint:
        with read_transaction(self._engine) as connection:
            row = connection.execute(select(*(table.c[name] for name in _FIELDS))).one()
        return SignedCheckpoint(**row._mapping)

    def replace(self, seen: SignedCheckpoint, by: SignedCheckpoint) -> bool:
        same = (table.c[name] == getattr(seen, name) for name in _FIELDS)
        values = {name: getattr(by, name) for name in _FIELDS}
        with write_transaction(self._engine) as connection:
            return connection.execute(update(table).where(*same).values(**values)).rowcount == 1
