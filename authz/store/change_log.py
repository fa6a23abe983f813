"""Reads the change log: whole revisions, or stretches of bounded size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import msgspec
from sqlalchemy import Engine, Row, literal, select, tuple_

from authz.domain.errors import ErrorReason, OutOfRangeError
from authz.domain.mutations import Change, ChangePart, LogPlace, LogStretch, Mutation
from authz.store import tables
from authz.store.engine import read_transaction

_decoder = msgspec.json.Decoder(Mutation)


def read_changes(engine: Engine, after: int, limit: int) -> tuple[Change, ...]:
    """See `Directory.changes`."""
    revisions, changes = tables.revisions, tables.changes
    with read_transaction(engine) as connection:
        heads = connection.execute(
            select(revisions).where(revisions.c.revision > after).order_by(revisions.c.revision).limit(limit)
        ).all()
        if not heads:
            return ()
        rows = connection.execute(
            select(changes)
            .where(changes.c.revision > after, changes.c.revision <= heads[-1].revision)
            .order_by(changes.c.revision, changes.c.position)
        ).all()
    of_revision: dict[int, list[Row[Any]]] = {head.revision: [] for head in heads}
    for row in rows:
        of_revision[row.revision].append(row)
    return tuple(_change(head, of_revision[head.revision]) for head in heads)


def read_stretch(engine: Engine, after: int, skip: int, limit: int) -> LogStretch:
    """See `Directory.read_log`."""
    revisions, changes = tables.revisions, tables.changes
    place = tuple_(changes.c.revision, changes.c.position)
    with read_transaction(engine) as connection:
        head: int = connection.execute(select(tables.counter.c.revision)).scalar_one()
        if after > head:
            raise _expired("the token is ahead of this database, as after a restore")
        rows = connection.execute(
            select(changes, *(column for column in revisions.c if column.name != "revision"))
            .join(revisions, revisions.c.revision == changes.c.revision)
            .where(place >= tuple_(literal(after + 1), literal(skip)))
            .order_by(changes.c.revision, changes.c.position)
            .limit(limit + 1)
        ).all()
    if not rows and after < head:
        raise _expired("what follows the token is no longer in the change log")
    _require_gapless(rows, (after + 1, skip))
    # The row beyond the limit is read to see whether the last revision goes on.
    going_on = rows[limit].revision if len(rows) > limit else None
    parts = []
    for revision, grouped in groupby(rows[:limit], key=lambda row: row.revision):
        of_revision = list(grouped)
        parts.append(ChangePart(_change(of_revision[0], of_revision), is_last=revision != going_on))
    return LogStretch(tuple(parts), head)


def _require_gapless(rows: Sequence[Row[Any]], first: tuple[int, int]) -> None:
    """A log that was cut must not pass for one in which nothing happened."""
    allowed: tuple[tuple[int, int], ...] = (first,)
    for row in rows:
        if (row.revision, row.position) not in allowed:
            raise _expired("what follows the token is no longer in the change log")
        allowed = ((row.revision, row.position + 1), (row.revision + 1, 0))


def _expired(problem: str) -> OutOfRangeError:
    return OutOfRangeError(
        ErrorReason.TOKEN_EXPIRED,
        f"{problem}; read the directory anew and watch from the state that was read",
        field="after",
    )


def _change(head: Row[Any], rows: Sequence[Row[Any]]) -> Change:
    return Change(
        revision=head.revision,
        committed_at=head.committed_at,
        actor=head.actor,
        reason=head.reason,
        request_id=head.request_id,
        mutations=tuple(_decoder.decode(row.mutation) for row in rows),
        places=tuple(LogPlace(row.course_id, row.session_id) for row in rows),
    )
