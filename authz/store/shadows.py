"""Stores the last policy shadow and its results in one row."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, RowMapping, delete, insert, select, update

from authz.domain.errors import ErrorReason, FailedPreconditionError
from authz.domain.ids import Subject
from authz.domain.instants import Instant, format_instant
from authz.domain.shadow import PolicyShadow, ShadowExample, ShadowTally
from authz.store.engine import read_transaction, write_transaction
from authz.store.erased import pseudonyms_of
from authz.store.log_reader import hold_head
from authz.store.tables import policy_shadows as table

_COLUMNS = [table.c[name] for name in PolicyShadow.__struct_fields__ if name != "files"]


class SqlShadows:
    """A `Shadows` in SQLite or PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def start(self, shadow: PolicyShadow) -> None:
        """See `Shadows.start`."""
        with write_transaction(self._engine) as connection:
            hold_head(connection)  # one at a time: so no two are started at once
            before = _last(connection)
            if before is not None and before.ends_at > shadow.started_at:
                raise FailedPreconditionError(
                    ErrorReason.PRECONDITION_FAILED,
                    f"a shadow is running until {format_instant(before.ends_at)}; stop it first"
                    " (`authz policy shadow stop`)",
                )
            connection.execute(delete(table))
            row = msgspec.structs.asdict(shadow) | {"tally": _encoded(ShadowTally())}
            connection.execute(insert(table), row)

    def current(self) -> PolicyShadow | None:
        """See `Shadows.current`."""
        with read_transaction(self._engine) as connection:
            return _last(connection)

    def files(self, shadow_id: str) -> str | None:
        """See `Shadows.files`."""
        with read_transaction(self._engine) as connection:
            found: str | None = connection.scalar(select(table.c.files).where(table.c.id == shadow_id))
        return found

    def read(self) -> tuple[PolicyShadow, ShadowTally] | None:
        """See `Shadows.read`."""
        with read_transaction(self._engine) as connection:
            row = connection.execute(select(*_COLUMNS, table.c.tally)).mappings().first()
        return None if row is None else (_shadow(row), _decoded(row["tally"]))

    def add(self, shadow_id: str, tally: ShadowTally) -> None:
        """See `Shadows.add`."""
        its_row = table.c.id == shadow_id
        with write_transaction(self._engine) as connection:
            kept = connection.scalar(select(table.c.tally).where(its_row).with_for_update())
            if kept is not None:
                after = _encoded(_decoded(kept).plus(_without_erased(connection, tally)))
                connection.execute(update(table).where(its_row).values(tally=after))

    def stop(self, now: Instant) -> None:
        """See `Shadows.stop`."""
        with write_transaction(self._engine) as connection:
            ended = connection.execute(update(table).where(table.c.ends_at > now).values(ends_at=now))
        if not ended.rowcount:
            raise FailedPreconditionError(
                ErrorReason.PRECONDITION_FAILED, "no shadow is running, so there is nothing to stop"
            )

    def delete(self, shadow_id: str) -> None:
        """See `Shadows.delete`."""
        with write_transaction(self._engine) as connection:
            connection.execute(delete(table).where(table.c.id == shadow_id))


def examples_about(connection: Connection, subject: Subject) -> list[ShadowExample]:
    """The examples that are kept about a subject."""
    tallies = map(_decoded, connection.scalars(select(table.c.tally)))
    return [each for tally in tallies for each in tally.examples if each.subject == subject]


def erase_examples(connection: Connection, subject: Subject) -> int:
    """Delete the examples about a subject; return how many."""
    erased = 0
    for row in connection.execute(select(table.c.id, table.c.tally).with_for_update()).all():
        tally = _decoded(row.tally)
        left = tuple(each for each in tally.examples if each.subject != subject)
        if len(left) < len(tally.examples):
            erased += len(tally.examples) - len(left)
            text = _encoded(msgspec.structs.replace(tally, examples=left))
            connection.execute(update(table).where(table.c.id == row.id).values(tally=text))
    return erased


def _without_erased(connection: Connection, tally: ShadowTally) -> ShadowTally:
    """Without the examples about subjects that were erased since they were taken."""
    erased = pseudonyms_of(connection, [str(each.subject) for each in tally.examples])
    left = tuple(each for each in tally.examples if str(each.subject) not in erased)
    return msgspec.structs.replace(tally, examples=left)


def _last(connection: Connection) -> PolicyShadow | None:
    row = connection.execute(select(*_COLUMNS)).mappings().first()
    return None if row is None else _shadow(row)


def _shadow(row: RowMapping) -> PolicyShadow:
    values: dict[str, Any] = {column.name: row[column] for column in _COLUMNS}
    return PolicyShadow(**values, files="")


def _encoded(tally: ShadowTally) -> str:
    return msgspec.json.encode(tally).decode()


def _decoded(text: str) -> ShadowTally:
    return msgspec.json.decode(text, type=ShadowTally)
