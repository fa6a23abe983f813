"""Sets periods of retention in a store, purges it, and reads what it has left."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from sqlalchemy import select

from authz.domain.entities import CourseKey, Entity, Hold, RetainedData, RetentionRule
from authz.domain.ids import course_scope
from authz.domain.instants import DAY_US
from authz.domain.mutations import ChangeScope, Mutation
from authz.domain.origin import Origin
from authz.domain.retention import PeriodRequest
from authz.store import Store, tables
from authz.store.database.engine import read_transaction
from tests.store.directory import Clock

YEAR_US = 365 * DAY_US
COURSE = CourseKey("c")
SCOPE = course_scope("c")
HERE = ChangeScope("c")
DAYS = {
    RetainedData.CHANGES: 365,
    RetainedData.MEMBERSHIPS: 180,
    RetainedData.DECISIONS: 90,
    RetainedData.IDEMPOTENCY_KEYS: 7,
    RetainedData.TOMBSTONES: 180,
}


def eleven_years_ago() -> Clock:
    """Ten years from it are before today: nothing is purged by a clock ahead of the database's."""
    clock = Clock()
    clock.now = time.time_ns() // 1000 - 11 * YEAR_US
    return clock


def set_period(store: Store, data: RetainedData, days: int | None, **more: Any) -> RetentionRule:
    request = PeriodRequest(
        data=data, days=days, origin=Origin("user:dpo", "the policy of the school"), **more
    )
    return store.retention.set_period(request)[0].entity


def set_periods(store: Store) -> None:
    for data, days in DAYS.items():
        set_period(store, data, days)


def purge(store: Store) -> int:
    """Take every step that is due; the number of steps."""
    steps = 0
    while store.retention.purge_progress() is not None:
        store.retention.advance_purge()
        steps += 1
    return steps


def rule_of(store: Store, data: RetainedData) -> RetentionRule:
    return next(each.entity for each in store.retention.rules() if each.entity.data is data)


def log_of(store: Store, after: int = 0) -> list[tuple[int, int, Mutation]]:
    """The changes that the log has after a revision, each with its revision and the time of that."""
    changes, revisions = tables.changes, tables.revisions
    with read_transaction(store.directory._engine) as connection:
        rows = connection.execute(
            select(changes.c.revision, revisions.c.committed_at, changes.c.mutation)
            .join(revisions, revisions.c.revision == changes.c.revision)
            .where(changes.c.revision > after)
            .order_by(changes.c.revision, changes.c.position)
        ).all()
    decode = msgspec.json.Decoder(Mutation).decode
    return [(row.revision, row.committed_at, decode(row.mutation)) for row in rows]


def past_of(store: Store, at: int) -> set[Entity]:
    """What there was at a time, in the course and on the platform, without the rules and holds themselves."""
    found = store.directory.records_at(at, COURSE, lambda _: True, likely=HERE, subject=None)
    return {each for each in found.entities if not isinstance(each, Hold | RetentionRule)}


def count(store: Store, table: Any) -> int:
    with read_transaction(store.directory._engine) as connection:
        return len(connection.execute(select(table)).all())
