"""Stores the last policy shadow of the platform and of each course, each with its results in one row."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, RowMapping, delete, func, insert, select, update

from authz.domain.drafts import of_course
from authz.domain.errors import precondition_failed
from authz.domain.ids import PLATFORM, Scope, Subject, course_scope
from authz.domain.instants import Instant, format_instant
from authz.domain.shadow import MAX_COURSE_SHADOWS, PolicyShadow, ShadowExample, ShadowTally
from authz.store.database.engine import read_transaction, write_transaction
from authz.store.log.reader import lock_head
from authz.store.privacy.erased import pseudonyms_of
from authz.store.tables import policy_shadows as table

_COLUMNS = [column for column in table.c if column not in {table.c.files, table.c.tally}]


class Shadows:
    """Stores the last shadow of the platform and of each course, with its tally. Every call blocks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def start(self, shadow: PolicyShadow) -> None:
        """Store a shadow in place of the last one of its scope. Raises `FailedPreconditionError` if the last
        one has not ended when the new one starts, and while `MAX_COURSE_SHADOWS` courses have a running one.
        """
        with write_transaction(self._engine) as connection:
            lock_head(connection)  # one at a time: so no two are started at once
            _require_free(connection, shadow)
            connection.execute(delete(table).where(table.c.course_id == shadow.scope.id))
            row = msgspec.structs.asdict(shadow)
            del row["scope"]
            row |= {"course_id": shadow.scope.id, "tally": _encoded(ShadowTally())}
            connection.execute(insert(table), row)

    def running(self, now: Instant) -> tuple[PolicyShadow, ...]:
        """The shadows that have not ended, without their files."""
        with read_transaction(self._engine) as connection:
            rows = connection.execute(select(*_COLUMNS).where(table.c.ends_at > now)).mappings().all()
        return tuple(map(_shadow, rows))

    def files(self, shadow_id: str) -> str | None:
        """The files of the candidate; None if this is not the last shadow of its scope."""
        with read_transaction(self._engine) as connection:
            found: str | None = connection.scalar(select(table.c.files).where(table.c.id == shadow_id))
        return found

    def read(self, scope: Scope = PLATFORM) -> tuple[PolicyShadow, ShadowTally] | None:
        """The last shadow of a scope, without its files, and its results."""
        last = select(*_COLUMNS, table.c.tally).where(table.c.course_id == scope.id)
        with read_transaction(self._engine) as connection:
            row = connection.execute(last).mappings().first()
        return None if row is None else (_shadow(row), _decoded(row["tally"]))

    def add(self, shadow_id: str, tally: ShadowTally) -> None:
        """Add to the tally, unless this is not the last shadow of its scope."""
        its_row = table.c.id == shadow_id
        with write_transaction(self._engine) as connection:
            kept = connection.scalar(select(table.c.tally).where(its_row).with_for_update())
            if kept is not None:
                after = _encoded(_decoded(kept).plus(_without_erased(connection, tally)))
                connection.execute(update(table).where(its_row).values(tally=after))

    def stop(self, now: Instant, scope: Scope = PLATFORM) -> None:
        """End the shadow of a scope. Raises `FailedPreconditionError` if none is running."""
        running = update(table).where(table.c.course_id == scope.id, table.c.ends_at > now)
        with write_transaction(self._engine) as connection:
            ended = connection.execute(running.values(ends_at=now))
        if not ended.rowcount:
            raise precondition_failed("no shadow is running, so there is nothing to stop")

    def delete_ended(self, before: Instant) -> None:
        """Delete the shadows that ended at `before` or earlier, with their tallies."""
        with write_transaction(self._engine) as connection:
            connection.execute(delete(table).where(table.c.ends_at <= before))


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


def _require_free(connection: Connection, shadow: PolicyShadow) -> None:
    """Raise `FailedPreconditionError` while another shadow must end before this one starts."""
    running = table.c.ends_at > shadow.started_at
    last = select(table.c.ends_at).where(table.c.course_id == shadow.scope.id, running)
    ends_at: Instant | None = connection.scalar(last)
    if ends_at is not None:
        course = of_course(shadow.scope)
        raise precondition_failed(
            f"a shadow is running until {format_instant(ends_at)}; stop it first"
            f" (`authz policy shadow stop{course}`)"
        )
    others = select(func.count()).select_from(table).where(running, table.c.course_id != PLATFORM.id)
    if shadow.scope != PLATFORM and connection.execute(others).scalar_one() >= MAX_COURSE_SHADOWS:
        raise precondition_failed(
            f"{MAX_COURSE_SHADOWS} other courses have a running shadow, and no more run at once;"
            " try again when one of them has ended"
        )


def _shadow(row: RowMapping) -> PolicyShadow:
    values: dict[str, Any] = {column.name: row[column] for column in _COLUMNS}
    course_id = values.pop("course_id")
    return PolicyShadow(**values, scope=course_scope(course_id) if course_id else PLATFORM)


def _encoded(tally: ShadowTally) -> str:
    return msgspec.json.encode(tally).decode()


def _decoded(text: str) -> ShadowTally:
    return msgspec.json.decode(text, type=ShadowTally)
