"""Finds out whether what retention keeps of the change log is there.

Before the cut, the log has the last change of each record. A deletion of such a change cannot pass for
retention: a later change names the revision that changed the record before, and a record that was not changed
since is compared with the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeAlias

from sqlalchemy import Connection, select

from authz.domain.entities import Key, RetainedData, RetentionRule
from authz.domain.instants import Instant, format_instant
from authz.domain.mutations import Operation
from authz.domain.retention import DAY_US, LIMITS, PURGE_INTERVAL_US, default_rule
from authz.store import tables
from authz.store.bulk import select_by
from authz.store.engine import stream
from authz.store.mutation_json import decode_mutation

_EFFECTS_AT_ONCE = 100
"""Each may be one of a thousand of its revision."""
_changes, _revisions = tables.changes, tables.revisions
_Effect: TypeAlias = tuple[int, Key]
"""What a revision did to one record."""


def last_purge(connection: Connection) -> RetentionRule:
    """The rule of the change log as the log last has it: not as its table says, which nothing attests."""
    found = _last_logged(connection)
    return default_rule(RetainedData.CHANGES) if found is None else found[1]


def decisions_purged_before(connection: Connection) -> Instant:
    """Before which time logged decisions may be gone by what the log says of their purges."""
    before = 0
    for row, rule in _logged(connection, RetainedData.DECISIONS):
        least = LIMITS[rule.data].min_days
        allowed, kept = (row.committed_at - days * DAY_US for days in (least, max(rule.days or 0, least)))
        # While a purge goes on, the log does not say up to when it is complete.
        in_steps = kept if rule.removed and rule.days else 0
        before = max(before, min(allowed, max(rule.complete_since or 0, in_steps)))
    # The clock of the database, by which a purge goes, may be ahead of that of the log.
    return before + PURGE_INTERVAL_US if before else 0


def _last_logged(connection: Connection) -> tuple[Any, RetentionRule] | None:
    return next(_logged(connection, RetainedData.CHANGES), None)


def _logged(connection: Connection, data: RetainedData) -> Iterator[tuple[Any, RetentionRule]]:
    """The rules of some data that the log has, and their revisions, the newest first."""
    wanted = (
        select(_changes.c.revision, _changes.c.mutation, _revisions.c.committed_at)
        .join(_revisions, _revisions.c.revision == _changes.c.revision)
        .where(_changes.c.kind == "retention_rule")
        .order_by(_changes.c.revision.desc(), _changes.c.position.desc())
    )
    with stream(connection, wanted) as rows:
        for row in rows:
            rule: Any = decode_mutation(row.mutation).target
            if rule.data is data:
                yield row, rule


def missing_changes(connection: Connection, purge: RetentionRule) -> Iterator[str]:
    """The faults of a purge: it went too far, or changes that it had to keep are gone."""
    found = _last_logged(connection)
    through = purge.through
    if found is None or through is None:
        return
    least_us = LIMITS[RetainedData.CHANGES].min_days * DAY_US
    if purge.complete_since is None or found[0].committed_at - purge.complete_since < least_us:
        yield f"the purge in revision {found[0].revision} went further than any retention period allows"
    expected, cut = _expected(connection, through), format_instant(purge.complete_since or 0)
    while effects := [*islice(expected, _EFFECTS_AT_ONCE)]:
        for revision, key in sorted(set(effects) - _there(connection, effects), key=str):
            yield f"revision {revision} has lost the last change of {key} before {cut}"


def _expected(connection: Connection, through: int) -> Iterator[_Effect]:
    """The last effects before a cut on records that were changed since."""
    later = select(_changes).where(
        _changes.c.revision > through, _changes.c.previous <= through, _changes.c.previous > 0
    )
    for row in stream(connection, later):
        yield row.previous, decode_mutation(row.mutation).key


def _there(connection: Connection, effects: Iterable[_Effect]) -> set[_Effect]:
    rows = select_by(
        connection, _changes, ("revision",), [[each] for each in {first for first, _ in effects}]
    )
    mutations = ((row.revision, decode_mutation(row.mutation)) for row in rows)
    return {(first, each.key) for first, each in mutations if each.operation is not Operation.DELETE}
