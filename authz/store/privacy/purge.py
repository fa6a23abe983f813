"""The retention rules, and what purges data that is older than they say: a bounded part in one transaction,
which logs it."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, TextClause, and_, delete, or_, select, tuple_

from authz.domain.entities import RetainedData, RetentionRule, Versioned
from authz.domain.instants import Instant
from authz.domain.origin import Origin
from authz.domain.retention import default_rule
from authz.store import tables
from authz.store.log import compaction
from authz.store.log.decision_leaves import oldest_batch, purge_batches
from authz.store.privacy.holds import HELD, held_subjects
from authz.store.rows import ENTITY_ROWS
from authz.store.write import Transaction

_MEMBERSHIPS = ENTITY_ROWS["membership"]
_HELD: ColumnElement[str] = HELD.c.subject_type + ":" + HELD.c.subject_id
"""A subject that is held, as `user:<id>`."""


_RULES = ENTITY_ROWS["retention_rule"]
_ALL = select(_RULES.table)


def read_rules(connection: Connection) -> dict[RetainedData, Versioned[RetentionRule]]:
    """The rules of all data; the default at revision 0 where nobody has set one."""
    stored = {each.entity.data: each for each in _RULES.read(connection, _ALL)}
    return {data: stored.get(data) or Versioned(default_rule(data), 0) for data in RetainedData}


def _not_held(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether there is no hold and no restriction for which one of the conditions is true."""
    return ~select(HELD.c.subject_id).where(or_(*conditions)).exists()


def _names_held(actor: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether an actor is held, or a part of it is. In a pattern, `_` in an id also matches others."""
    return or_(actor == _HELD, actor.like("% for " + _HELD), actor.like(_HELD + " for %"))


class _ExpiringRows(msgspec.Struct, frozen=True):
    """Rows that are purged by a time in one of their columns, many at a time."""

    table: Table
    time: str
    wanted: tuple[ColumnElement[bool] | TextClause, ...] = ()

    def oldest(self, connection: Connection) -> Instant | None:
        time = self.table.c[self.time]
        found: Instant | None = connection.execute(
            select(time).where(time.is_not(None), *self.wanted).order_by(time).limit(1)
        ).scalar()
        return found

    def purge(self, connection: Connection, before: Instant, limit: int) -> tuple[int, bool]:
        """Delete up to `limit` rows; return how many, and whether that is all."""
        time, key = self.table.c[self.time], [*self.table.primary_key]
        first = select(*key).where(time < before, *self.wanted).order_by(time).limit(limit)
        removed = connection.execute(delete(self.table).where(tuple_(*key).in_(first))).rowcount
        return removed, removed < limit


_members = _MEMBERSHIPS.table.c
_ENDED = _ExpiringRows(
    _MEMBERSHIPS.table,
    "ends_at",
    (
        tables.ENDS,
        _not_held(
            and_(HELD.c.subject_type == _members.subject_type, HELD.c.subject_id == _members.subject_id)
        ),
    ),
)
_AGED = {
    RetainedData.MEMBERSHIPS: _ENDED,
    RetainedData.IDEMPOTENCY_KEYS: _ExpiringRows(
        tables.idempotency_keys, "created_at", (_not_held(_names_held(tables.idempotency_keys.c.actor)),)
    ),
    RetainedData.TOMBSTONES: _ExpiringRows(tables.tombstones, "deleted_at"),
}
_ROWS_PER_RECORD = 4
"""Deleting rows that nobody follows takes a fraction of the time of a logged deletion."""


def oldest(connection: Connection, rule: RetentionRule) -> Instant | None:
    """The time of the oldest of what a rule may purge; None if there is nothing."""
    if rule.data is RetainedData.CHANGES:
        return compaction.oldest(connection, rule)
    if rule.data is RetainedData.DECISIONS:
        return oldest_batch(connection)
    return _AGED[rule.data].oldest(connection)


def purge(transaction: Transaction, origin: Origin, rule: RetentionRule, before: Instant) -> int:
    """Purge a part of what is older than a time, and log how much; return that."""
    connection, limit = transaction.connection, transaction.contents_at_once
    if rule.data is RetainedData.CHANGES:
        return compaction.compact(transaction, origin, rule, before)
    members: list[Versioned[Any]] = []
    if rule.data is RetainedData.MEMBERSHIPS:
        members = _ended(connection, before, limit)
        removed, is_all = len(members), len(members) < limit
    elif rule.data is RetainedData.DECISIONS:
        held = {*map(str, held_subjects(connection))}
        removed, through, is_all = purge_batches(connection, before, limit * _ROWS_PER_RECORD, held)
        rule = msgspec.structs.replace(rule, through=max(rule.through or 0, through) or None)
    else:
        removed, is_all = _AGED[rule.data].purge(connection, before, limit * _ROWS_PER_RECORD)
    rule = msgspec.structs.replace(
        rule,
        removed=(rule.removed or 0) + removed or None,
        # Before the last step, the rest of what is older is still there.
        complete_since=before if is_all else rule.complete_since,
    )
    with transaction.revision(origin) as batch:
        batch.delete_members(members)
        batch.rewrite([rule])
    return removed


def _ended(connection: Connection, before: Instant, limit: int) -> list[Versioned[Any]]:
    ended = select(_MEMBERSHIPS.table).where(_members.ends_at < before, *_ENDED.wanted)
    return _MEMBERSHIPS.read(connection, ended.order_by(_members.ends_at).limit(limit))
