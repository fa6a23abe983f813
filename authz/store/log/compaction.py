"""Compacts the change log: of what is older than a cut, each record's last change stays.

So the log can be replayed exactly for every time after the cut, and needs no base besides itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Connection, Row, and_, func, select

from authz.domain.entities import RetentionRule
from authz.domain.ids import Subject
from authz.domain.instants import Instant
from authz.domain.mentions import mentions, subjects_in
from authz.domain.mutations import Mutation, Operation
from authz.domain.origin import Origin
from authz.store import tables
from authz.store.bulk import delete_by_key, select_by, upsert_rows
from authz.store.log.leaves import LeafMaker
from authz.store.log.mutation_json import decode_mutation
from authz.store.log.reader import RecordVersion, raise_resumable_from
from authz.store.privacy.erasure_steps import rewritten_through
from authz.store.privacy.holds import held_subjects
from authz.store.rows import subject_of
from authz.store.write import Transaction

_MAX_ROWS = 10_000
"""How many rows of earlier revisions a step may read."""
_changes, _revisions, _leaves, _held = tables.changes, tables.revisions, tables.leaves, tables.held_changes
_MAX_REVISION = 2**63 - 1
_LEAF_COLUMNS = [column.name for column in _leaves.columns]
_encoder = msgspec.json.Encoder()

_Position: TypeAlias = tuple[int, int]
"""A revision, and the position of a change in it."""


class _Change(msgspec.Struct, frozen=True):
    """A row of the log."""

    row: Row[Any]
    mutation: Mutation

    @property
    def log_position(self) -> _Position:
        return self.row.revision, self.row.position

    @property
    def version(self) -> RecordVersion:
        return self.row.revision, self.mutation.key


def oldest(connection: Connection, rule: RetentionRule) -> Instant | None:
    """When the first revision was committed that may be compacted next; 0 if a hold is over that kept some
    changes. None if there is none."""
    end = _end(connection)
    released = select(_held.c.revision).where(_held.c.subject_id.is_(None), _held.c.revision <= end)
    if connection.execute(released.limit(1)).first():
        return 0
    part = and_(_revisions.c.revision > (rule.through or 0), _revisions.c.revision <= end)
    following = select(_revisions.c.committed_at).where(part)
    found: Instant | None = connection.execute(following.order_by(_revisions.c.revision).limit(1)).scalar()
    return found


def compact(transaction: Transaction, origin: Origin, rule: RetentionRule, before: Instant) -> int:
    """Move the cut by a bounded number of changes, and log that; return how many were removed.

    Not beyond what was committed before a time. Changes that a hold concerns stay, and so do the later ones
    of the same record.
    """
    connection, limit, end = (
        transaction.connection,
        transaction.contents_at_once,
        _end(transaction.connection),
    )
    if released := _released(connection, end, limit):
        removed, after = _withhold(connection, released), rule
        _remove(connection, removed, set(), keeps=rule.through or 0)
    elif window := _window(connection, rule.through or 0, end, before, limit):
        removed = _withhold(connection, _superseded(connection, window))
        through = window[-1].row.revision
        after = _move_cut(connection, rule, through, removed)
    else:
        removed, after = [], rule
    after = msgspec.structs.replace(after, removed=(rule.removed or 0) + len(removed) or None)
    with transaction.revision(origin) as batch:
        batch.rewrite([after])
    return len(removed)


def _move_cut(
    connection: Connection, rule: RetentionRule, through: int, removed: Sequence[_Change]
) -> RetentionRule:
    """Remove changes, and move the cut to a revision, from which readers may continue."""
    committed_at = select(_revisions.c.committed_at).where(_revisions.c.revision == through)
    complete_since = connection.execute(committed_at).scalar_one()
    _remove(connection, removed, {rule.through or 0}, keeps=through)
    raise_resumable_from(connection, through)
    return msgspec.structs.replace(rule, complete_since=complete_since, through=through)


def _end(connection: Connection) -> int:
    """The last revision that may be compacted. The changes of a record are found by its name, and an erasure
    goes through the log from its beginning: up to where it is, each record has one."""
    through = rewritten_through(connection)
    return _MAX_REVISION if through is None else through


def _window(connection: Connection, after: int, end: int, before: Instant, limit: int) -> list[_Change]:
    """The changes of the next revisions, whole ones: as many as have `limit` changes, at least one."""
    counted = (
        select(_revisions.c.revision, func.count(_changes.c.position).label("changes"))
        .outerjoin_from(_revisions, _changes, _changes.c.revision == _revisions.c.revision)
        .where(
            _revisions.c.revision > after, _revisions.c.revision <= end, _revisions.c.committed_at < before
        )
        .group_by(_revisions.c.revision)
        .order_by(_revisions.c.revision)
        .limit(limit)
    )
    taken: list[int] = []
    total = 0
    for revision, changes in connection.execute(counted):
        total += changes
        if taken and total > limit:
            break
        taken.append(revision)
    while True:
        window = _read(connection, taken)
        if len(taken) <= 1 or _count(connection, {each.row.previous for each in window}) <= _MAX_ROWS:
            return window
        taken = taken[: len(taken) // 2]


def _count(connection: Connection, revisions: Iterable[int | None]) -> int:
    """How many changes some revisions have; 0 and None are no revisions."""
    wanted = [revision for revision in revisions if revision]
    return sum(
        connection.execute(
            select(func.count()).select_from(_changes).where(_changes.c.revision.in_(part))
        ).scalar_one()
        for part in (wanted[start : start + 1000] for start in range(0, len(wanted), 1000))
    )


def _read(connection: Connection, revisions: Iterable[int]) -> list[_Change]:
    """The changes of some revisions, in order."""
    rows = select_by(connection, _changes, ("revision",), [[each] for each in revisions])
    found = [_Change(row, decode_mutation(row.mutation)) for row in rows]
    return sorted(found, key=lambda each: each.log_position)


def _superseded(connection: Connection, window: Sequence[_Change]) -> dict[_Position, _Change]:
    """The changes that a window supersedes: the previous ones of the same records, and its own deletions."""
    earlier: dict[RecordVersion, list[_Change]] = defaultdict(list)
    for change in _read(connection, {each.row.previous for each in window if each.row.previous}):
        earlier[change.version].append(change)
    found: dict[_Position, _Change] = {}
    for change in window:
        previous = change.row.previous
        before = earlier.get((previous, change.mutation.key), []) if previous else []
        found |= {each.log_position: each for each in before if each.log_position < change.log_position}
        if change.mutation.operation is Operation.DELETE:
            found[change.log_position] = change
    return found


def _released(connection: Connection, end: int, limit: int) -> dict[_Position, _Change]:
    """The first changes whose hold is over."""
    is_released = and_(_held.c.subject_id.is_(None), _held.c.revision <= end)
    wanted = select(_held.c.revision, _held.c.position).where(is_released)
    rows = connection.execute(wanted.order_by(_held.c.revision, _held.c.position).limit(limit)).all()
    places = {(row.revision, row.position) for row in rows}
    found = _read(connection, {revision for revision, _ in places})
    delete_by_key(connection, _held, sorted(places))
    return {each.log_position: each for each in found if each.log_position in places}


def _withhold(connection: Connection, superseded: dict[_Position, _Change]) -> list[_Change]:
    """Keep what a hold concerns; return the rest. Later changes of the same record are kept, too: without
    its deletion, for example, the record would come back.
    """
    in_order = [superseded[place] for place in sorted(superseded)]
    held = sorted(held_subjects(connection))
    kept = _kept_before(connection, in_order)
    if not (held or kept):
        return in_order
    actors = _actors(connection, in_order)
    removed, withheld = [], []
    for change in in_order:
        holder = next(
            (each for each in held if _concerns(change, actors[change.row.revision], each)),
            kept.get((change.row.previous, change.mutation.key)),
        )
        if holder is None:
            removed.append(change)
        else:
            kept[change.version] = holder
            withheld.append((*change.log_position, holder.type.value, holder.id))
    upsert_rows(connection, _held, withheld)
    return removed


def _kept_before(connection: Connection, changes: Sequence[_Change]) -> dict[RecordVersion, Subject]:
    """The previous changes that a hold keeps, and the subject of the hold."""
    wanted = {each.row.previous for each in changes if each.row.previous}
    rows = select_by(connection, _held, ("revision",), [[each] for each in wanted])
    held = {(row.revision, row.position): row for row in rows if row.subject_id is not None}
    found = _read(connection, {revision for revision, _ in held})
    return {each.version: subject_of(held[each.log_position]) for each in found if each.log_position in held}


def _actors(connection: Connection, changes: Iterable[_Change]) -> dict[int, str]:
    revisions = {each.row.revision for each in changes}
    rows = select_by(connection, _revisions, ("revision",), [[each] for each in revisions])
    return {row.revision: row.actor for row in rows}


def _concerns(change: _Change, actor: str, subject: Subject) -> bool:
    return mentions(actor, subject) or any(subject in subjects_in(each) for each in change.mutation.records)


def _remove(connection: Connection, removed: Sequence[_Change], others: set[int], *, keeps: int) -> None:
    """Delete changes, and revisions that are left without any; their leaves stay.

    The revision `keeps` stays, because readers may continue from it. A revision of `others` is deleted, too,
    if it has no changes.
    """
    gone: dict[int, set[int]] = defaultdict(set, {each: set() for each in others if each})
    for change in removed:
        gone[change.row.revision].add(change.row.position)
    wanted = [[revision] for revision in gone]
    heads = {row.revision: row for row in select_by(connection, _revisions, ("revision",), wanted)}
    leaves = {row.revision: row for row in select_by(connection, _leaves, ("revision",), wanted)}
    leaf_maker = LeafMaker(connection)
    rewritten, emptied = list[dict[str, Any]](), list[int]()
    for revision, found in groupby(_read(connection, [*heads]), lambda each: each.row.revision):
        rows = [*found]
        head, leaf, positions = dict(heads.pop(revision)._mapping), leaves[revision], gone[revision]
        if len(rows) == len(positions) and revision != keeps:
            emptied.append(revision)
        elif positions:
            contents = [dict(each.row._mapping) for each in rows]
            made = leaf_maker.leaf(head, contents, leaf)
            there = {each.row.position for each in rows} - positions
            purged = [
                msgspec.structs.replace(each, content=b"")
                for each in made.changes
                if each.position not in there
            ]
            rewritten.append(dict(leaf._mapping) | {"purged": _encoder.encode(purged).decode()})
    emptied += [revision for revision in heads if revision != keeps]
    rewritten += [dict(leaves[each]._mapping) | {"text_macs": "", "purged": ""} for each in emptied]
    upsert_rows(connection, _leaves, [[row[name] for name in _LEAF_COLUMNS] for row in rewritten])
    delete_by_key(connection, _changes, [each.log_position for each in removed])
    delete_by_key(connection, _revisions, [[each] for each in emptied])
