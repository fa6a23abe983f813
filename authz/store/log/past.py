"""What the directory was at an earlier time, from the change log."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from sqlalchemy import Connection, and_, func, or_, select

from authz.domain.entities import CourseKey, Entity, Key, RetainedData, SessionKey, kind_of
from authz.domain.errors import OutOfRangeError
from authz.domain.ids import ResourceRef
from authz.domain.instants import Instant, format_instant
from authz.domain.mutations import ChangeScope, Operation
from authz.domain.tokens import ConsistencyToken
from authz.store import tables
from authz.store.database.engine import stream
from authz.store.log import reader
from authz.store.log.mutation_json import decode_mutation
from authz.store.privacy.purge import read_rules

_changes, _revisions = tables.changes, tables.revisions


class PastRecords(msgspec.Struct, frozen=True):
    """The records of one course, or of a session that stands alone, and of the platform, as they were."""

    state: ConsistencyToken
    entities: tuple[Entity, ...]


def read_past(
    connection: Connection,
    time: Instant,
    record: CourseKey | SessionKey | ResourceRef,
    wanted: Callable[[Key], bool],
    likely: ChangeScope,
) -> PastRecords:
    """See `SqlDirectory.records_at`."""
    head = reader.read_head(connection)
    _require_known(connection, time, head)
    row = connection.execute(
        select(_revisions)
        .where(_revisions.c.committed_at <= time)
        .order_by(_revisions.c.revision.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        return PastRecords(ConsistencyToken(head.database_id, 0), ())
    state = ConsistencyToken(head.database_id, row.revision, row.committed_at, row.nonce)
    records = _replayed(connection, likely, row.revision, wanted)
    if record not in records:
        scope = _scope_of(connection, record, row.revision)
        if scope != likely:
            records = _replayed(connection, scope, row.revision, wanted)
    return PastRecords(state, tuple(records.values()))


def _require_known(connection: Connection, time: Instant, head: ConsistencyToken) -> None:
    """Raise `OutOfRangeError` (TOKEN_EXPIRED) if the log cannot tell what there was at a time."""
    since = read_rules(connection)[RetainedData.CHANGES].entity.complete_since
    if since is not None:
        if time < since:
            raise OutOfRangeError(
                f"retention has purged what was before {format_instant(since)}; ask about a later"
                " time, or leave as_of out",
                field="as_of",
            )
        return
    first = connection.execute(select(func.min(_revisions.c.revision))).scalar_one()
    if head.revision and first != 1:
        raise OutOfRangeError("the change log no longer reaches back to its beginning; leave as_of out")


def _scope_of(connection: Connection, key: Key, up_to: int) -> ChangeScope:
    """Where a record last was. Nowhere, if the log does not know it.

    The log has no index of keys: this reads what it has of the kind, newest first.
    """
    rows = stream(
        connection,
        select(_changes.c.course_id, _changes.c.session_id, _changes.c.mutation)
        .where(
            _changes.c.kind == kind_of(key).name,
            _changes.c.mutation.contains(f'"{key.id}"', autoescape=True),  # type: ignore[union-attr]
            _changes.c.revision <= up_to,
        )
        .order_by(_changes.c.revision.desc(), _changes.c.position.desc()),
    )
    with rows:
        for row in rows:
            if decode_mutation(row.mutation).key == key:
                return ChangeScope(row.course_id, row.session_id)
    return ChangeScope()


def _replayed(
    connection: Connection, scope: ChangeScope, up_to: int, wanted: Callable[[Key], bool]
) -> dict[Key, Entity]:
    is_here = and_(_changes.c.course_id.is_(None), _changes.c.session_id.is_(None))
    if scope.course_id is not None:
        is_here = or_(is_here, _changes.c.course_id == scope.course_id)
    elif scope.session_id is not None:
        # Not what the session was in a course before: without its course, the session would seem unknown.
        is_alone = and_(_changes.c.course_id.is_(None), _changes.c.session_id == scope.session_id)
        is_here = or_(is_here, is_alone)
    rows = stream(
        connection,
        select(_changes.c.mutation)
        .where(_changes.c.revision <= up_to, is_here)
        .order_by(_changes.c.revision, _changes.c.position),
    )
    records: dict[Key, Entity] = {}
    for (text,) in rows:
        mutation = decode_mutation(text)
        key = mutation.key
        if not wanted(key):
            continue
        if mutation.operation is Operation.DELETE:
            records.pop(key, None)
        else:
            assert isinstance(mutation.target, Entity)  # noqa: S101  the log holds whole entities
            records[key] = mutation.target
    return records
