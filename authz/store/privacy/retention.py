"""The retention rules in the database, and the steps of purges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Select, literal_column, select

from authz.domain.entities import RetainedData, RetentionRule, Versioned
from authz.domain.errors import precondition_failed
from authz.domain.instants import Instant
from authz.domain.origin import Origin
from authz.domain.retention import PURGE_INTERVAL_US, PeriodRequest, Purged, kept_since, require_allowed
from authz.domain.tokens import ConsistencyToken
from authz.store.database.connections import expecting_long_statements
from authz.store.database.engine import read_transaction, write_transaction
from authz.store.directory import SqlDirectory
from authz.store.privacy.purge import oldest, purge, read_rules
from authz.store.privacy.renames import forget, forgettable

_ACTOR = "authz"
_NOW_US: dict[str, Select[Any]] = {
    "postgresql": select(literal_column("CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")),
    "sqlite": select(literal_column("CAST(strftime('%s', 'now') AS integer) * 1000000")),
}


class Retention:
    """The retention rules in the store. Every call blocks and is thread-safe."""

    def __init__(self, engine: Engine, directory: SqlDirectory, clock: Callable[[], Instant]) -> None:
        self._engine = engine
        self._directory = directory
        self._clock = clock

    def rules(self) -> tuple[Versioned[RetentionRule], ...]:
        """Those of all data. A rule that nobody has set has its default and revision 0."""
        with read_transaction(self._engine) as connection:
            return tuple(read_rules(connection).values())

    def set_period(self, request: PeriodRequest) -> tuple[Versioned[RetentionRule], ConsistencyToken]:
        """Set a period; return the rule and the state from which on it applies.

        Raises `InvalidArgumentError` for a period outside the limits, `FailedPreconditionError` if the rule
        is at another revision than the request names.
        """
        require_allowed(request.data, request.days)
        with self._directory.transaction() as transaction:
            found = read_rules(transaction.connection)[request.data]
            if request.revision not in (None, found.revision):
                raise precondition_failed(
                    f"{found.entity.key} must be at revision {request.revision}, and is at revision"
                    f" {found.revision}; read it again",
                    key=str(found.entity.key),
                )
            rule = msgspec.structs.replace(found.entity, days=request.days)
            with transaction.revision(request.origin) as batch:
                batch.rewrite([rule])
            return Versioned(rule, transaction.head.revision), transaction.head

    def purge_progress(self) -> object | None:
        """What is to be purged next, a different value after each step. None if nothing is due, which is
        once something is a day older than its period allows. Takes no lock."""
        with read_transaction(self._engine) as connection:
            return self._due(connection)

    def advance_purge(self) -> Purged:
        """Purge a bounded part of what is due, in one transaction that also logs it. If several processes
        try, each part is purged once."""
        with self._directory.transaction() as transaction:
            due = self._due(transaction.connection)
            if due is None:
                return Purged(None, 0, transaction.head)
            rule, origin = due.entity, Origin(_ACTOR, f"{due.entity.key}: {due.entity.days} days")
            before = kept_since(rule, self._now(transaction.connection))
            assert before is not None  # noqa: S101  it is due; narrows the type
            removed = purge(transaction, origin, rule, before)
            purged = Purged(rule.data, removed, transaction.head)
        if purged.data is RetainedData.CHANGES:
            self._forget_renames()
        return purged

    def _forget_renames(self) -> None:
        """Forget the renames whose changes are purged, once no others are due: it reads all texts. So it
        holds no lock meanwhile; a text that is written later could also be written when they are gone."""
        with read_transaction(self._engine) as connection, expecting_long_statements(connection):
            rule = read_rules(connection)[RetainedData.CHANGES].entity
            if _is_due(connection, rule, self._now(connection)):
                return
            revisions = forgettable(connection, rule.through or 0)
        if revisions:
            with write_transaction(self._engine) as connection:
                forget(connection, revisions)

    def _due(self, connection: Connection) -> Versioned[RetentionRule] | None:
        """A rule by which something is to be purged. Each step changes its rule, and the next step is by the
        one that changed first, so that a purge that takes days holds up no other."""
        now = self._now(connection)
        due = (each for each in read_rules(connection).values() if _is_due(connection, each.entity, now))
        return min(due, key=lambda each: each.revision, default=None)

    def _now(self, connection: Connection) -> Instant:
        """The earlier time of this machine and the database, so that a clock that is ahead purges nothing."""
        of_database: Instant = connection.execute(_NOW_US[connection.dialect.name]).scalar_one()
        return min(self._clock(), of_database)


def _is_due(connection: Connection, rule: RetentionRule, now: Instant) -> bool:
    """Whether something is a day older than a rule allows."""
    before = kept_since(rule, now)
    first = None if before is None else oldest(connection, rule)
    return first is not None and before is not None and first < before - PURGE_INTERVAL_US
