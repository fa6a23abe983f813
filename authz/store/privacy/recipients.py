"""Keeps who watches, and finds who asked about a subject."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlalchemy import Connection, Engine, delete, func, or_, select

from authz.domain.decision_log import REFUSED_CODES, UNLOGGED_WRITES
from authz.domain.errors import precondition_failed
from authz.domain.ids import Subject
from authz.domain.instants import US_PER_S, Instant
from authz.domain.recipients import AskerReport, Watcher
from authz.store import tables
from authz.store.bulk import upsert_rows
from authz.store.database.engine import read_transaction, write_transaction

_SEEN_AGAIN_US = 60 * US_PER_S
"""Unless it says something new, a watcher is recorded once in so long, however often it connects."""
_TELLS_NOTHING = (*UNLOGGED_WRITES, "ReadErasures")
"""Methods that tell their caller nothing about the subject that they name; a certificate names none."""
_watchers, _decisions = tables.watchers, tables.decisions


class Recipients:
    """The watchers that the database knows. Every call blocks."""

    def __init__(self, engine: Engine, clock: Callable[[], Instant]) -> None:
        self._engine = engine
        self._clock = clock

    def record(self, caller: str, *, sent: int = 0, acknowledged: int = 0) -> None:
        """Record that a caller watches, was sent an erasure, or resumed from a revision. What was known of it
        before stays."""
        now, known = self._clock(), select(_watchers).where(_watchers.c.caller == caller)
        with read_transaction(self._engine) as connection:
            row = connection.execute(known).one_or_none()
        if row is not None:
            is_known = sent <= row.sent and acknowledged <= row.acknowledged
            if is_known and now < row.seen_at + _SEEN_AGAIN_US:
                return
        with write_transaction(self._engine) as connection:
            row = connection.execute(known.with_for_update()).one_or_none()
            if row is not None:
                sent, acknowledged = max(sent, row.sent), max(acknowledged, row.acknowledged)
            upsert_rows(connection, _watchers, [(caller, sent, acknowledged, now)])

    def forget(self, caller: str) -> None:
        """Forget a watcher that will not return. Raises `FailedPreconditionError` for an unknown one."""
        with write_transaction(self._engine) as connection:
            if not connection.execute(delete(_watchers).where(_watchers.c.caller == caller)).rowcount:
                raise precondition_failed(
                    f"there is no watcher `{caller}`; `authz privacy erasures` shows their names", name=caller
                )


def watchers(connection: Connection) -> tuple[Watcher, ...]:
    """All that are known, ordered by caller."""
    rows = connection.execute(select(_watchers).order_by(_watchers.c.caller))
    return tuple(Watcher(**row._mapping) for row in rows)


def askers(connection: Connection, subject: Subject) -> Iterator[AskerReport]:
    """The callers that were told something about a subject, by the decisions that are kept, ordered by
    caller."""
    columns = _decisions.c
    times = (func.count(), func.min(columns.at), func.max(columns.at))
    wanted = select(columns.caller, *times).where(
        columns.subject == str(subject),
        or_(columns.allowed, columns.code.not_in(REFUSED_CODES)),
        columns.method.not_in(_TELLS_NOTHING),
    )
    for row in connection.execute(wanted.group_by(columns.caller).order_by(columns.caller)):
        yield AskerReport(*row)
