"""Verifies every revision of the change log, and every logged decision, against its leaf; computes the trees.

Compares the records, too, with what the log makes of them. A replica that is rebuilt reads the records. So a
record that somebody changed without the service would grant access that the change log does not show.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from hashlib import blake2b
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Connection, Row, func, select

from authz.domain.entities import Entity, Erasure, ErasureStatus, Key, RetainedData, RetentionRule
from authz.domain.instants import DAY_US, Instant, format_instant
from authz.domain.mentions import with_subjects
from authz.domain.mutations import Operation
from authz.domain.retention import LIMITS, PURGE_INTERVAL_US, default_rule
from authz.domain.tree import leaf_hash
from authz.store import tables
from authz.store.bulk import select_by
from authz.store.database.connections import expecting_long_statements
from authz.store.database.engine import opened, read_transaction, stream
from authz.store.log.decision_leaves import BatchState, entries_of, extent_of, leaf_content
from authz.store.log.leaves import LeafMaker
from authz.store.log.mutation_json import decode_mutation
from authz.store.log.reader import RecordVersion, read_head
from authz.store.log.stored_tree import RecomputedTree
from authz.store.rows import ENTITY_ROWS
from authz.store.schema import require_current

_CACHE_KIB = 256 * 1024
_HASH_BYTES = 16
_encode = msgspec.json.Encoder().encode
_keys: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Key)
_VERSIONS_AT_ONCE = 100
"""Each may be one of a thousand of its revision."""
UNREADABLE = (KeyError, TypeError, ValueError, msgspec.MsgspecError)
"""What a row raises in which somebody has put what the service does not write, such as an unknown status."""
_Content: TypeAlias = tuple[dict[str, Any], list[dict[str, Any]]]
"""A revision and its changes."""
_changes, _revisions = tables.changes, tables.revisions
_leaves, _batches = tables.leaves, tables.decision_leaves


class LogTree(msgspec.Struct, frozen=True, kw_only=True):
    """The tree of a log. `roots` has the roots of the requested sizes, as far as the tree has them.

    `faults` lists the revisions that differ from their leaves. Retention has purged `purged` changes of the
    first `through` revisions. `erased` counts the texts that an erasure has emptied or changed. `records`
    counts the records that were compared with the log; None while an erasure rewrites it.
    """

    size: int
    roots: dict[int, bytes]
    faults: tuple[str, ...]
    purged: int
    through: int
    erased: int
    records: int | None


class DecisionTree(msgspec.Struct, frozen=True, kw_only=True):
    """The tree of the logged decisions. `roots` has the roots of the requested sizes, as far as the tree has
    them.

    `faults` says what differs from its leaf. The entries of `purged` leaves are gone, the newest of which was
    of `purged_until`.
    """

    size: int
    roots: dict[int, bytes]
    faults: tuple[str, ...]
    purged: int
    purged_until: int


def read_trees(
    url: str,
    sizes: Collection[int] = (),
    decision_sizes: Collection[int] = (),
    *,
    password_file: str = "",
) -> tuple[LogTree, DecisionTree]:
    """Verify every revision, every record and every logged decision of a database; return its trees, with the
    roots of their full sizes, too. Raises as `open_store`, and one of `UNREADABLE` for a row that the service
    did not write.
    """
    with opened(url, password_file) as engine:
        require_current(engine)
        with read_transaction(engine) as connection, expecting_long_statements(connection):
            tree = _read_tree(connection, {*sizes, read_head(connection).revision})
            return tree, _read_decision_tree(connection, decision_sizes)


def _read_tree(connection: Connection, sizes: Collection[int]) -> LogTree:
    logged, purge = _last_purge(connection)
    leaf_maker, records, through = LeafMaker(connection), _ReplayedRecords(), purge.through or 0
    tree, erased, incomplete = RecomputedTree("revision {}", sizes), 0, list[int]()
    for revision, leaf, content in _revisions_with_leaves(connection):
        for row in () if content is None else content[1]:
            records.apply(revision, row["mutation"])
        if leaf is None:
            tree.report(f"revision {revision} has no leaf")
            continue
        tree.add(revision, leaf)
        if content is not None:
            found = leaf_maker.leaf(*content, leaf)
            erased += found.erased
            if found.erased:
                incomplete.append(revision)
            if found.hash != leaf.hash or (leaf.purged and revision > through):
                tree.report(f"revision {revision} is not as it was committed")
        elif revision > through:
            tree.report(f"revision {revision} is gone")
    for revision in incomplete if records.are_comparable else ():
        if revision > records.last_erasure:
            tree.report(f"revision {revision} has lost a text, and nobody was erased since")
    for fault in _missing_changes(connection, logged, purge, leaf_maker):
        tree.report(fault)
    for fault in records.differences(connection) if records.are_comparable else ():
        tree.report(fault)
    if tree.size != (head := read_head(connection).revision):
        tree.report(f"the database counts {head} revisions, and the tree has {tree.size}")
    return LogTree(
        size=tree.size,
        roots=tree.roots,
        faults=tree.faults(),
        purged=purge.removed or 0,
        through=through,
        erased=erased,
        records=records.compared if records.are_comparable else None,
    )


def _revisions_with_leaves(connection: Connection) -> Iterator[tuple[int, Row[Any] | None, _Content | None]]:
    """Every revision with its leaf and its content, in order; None for the one of the two that is missing."""
    leaves = stream(connection, select(_leaves).order_by(_leaves.c.revision))
    either = heapq.merge(
        ((leaf.revision, leaf, None) for leaf in leaves),
        ((content[0]["revision"], None, content) for content in contents(connection)),
        key=itemgetter(0),
    )
    for revision, found in groupby(either, key=itemgetter(0)):
        leaf = content = None
        for _, of_leaf, of_log in found:
            leaf, content = of_leaf or leaf, of_log or content
        yield revision, leaf, content


def _read_decision_tree(connection: Connection, sizes: Collection[int]) -> DecisionTree:
    """Verify every logged decision; return the tree, with the root of its full size, too."""
    leaf_maker, purged_before = LeafMaker(connection), _decisions_purged_before(connection)
    last_rule = next((rule for _, rule in _logged(connection, RetainedData.DECISIONS)), None)
    purged_through = (last_rule and last_rule.through) or 0
    counted: int = connection.execute(select(tables.decision_tree.c.size)).scalar_one()
    tree = RecomputedTree("batch {} of the decisions", {*sizes, counted})
    entries = purged = purged_until = 0
    for leaf in stream(connection, select(_batches).order_by(_batches.c.number)):
        tree.add(leaf.number, leaf)
        batch = f"batch {leaf.number} of the decisions, of {format_instant(leaf.first_at)}, is"
        if leaf.state == BatchState.PURGED.value:
            purged, purged_until = purged + 1, max(purged_until, leaf.last_at)
            if leaf.number > purged_through or leaf.last_at >= purged_before:
                tree.report(f"{batch} gone before its time")
            continue
        found = entries_of(connection, leaf)
        entries += len(found)
        is_whole = (leaf.entries, leaf.first_at, leaf.last_at) == extent_of(found)
        if not is_whole or leaf_hash(leaf_content(leaf_maker, leaf.number, found)).hex() != leaf.hash:
            tree.report(f"{batch} not as it was logged")
    if tree.size != counted:
        tree.report(f"the database counts {counted} batches of decisions, and the tree has {tree.size}")
    stored: int = connection.execute(select(func.count()).select_from(tables.decisions)).scalar_one()
    if others := stored - entries:
        tree.report(f"{others} decisions are in no leaf")
    return DecisionTree(
        size=tree.size, roots=tree.roots, faults=tree.faults(), purged=purged, purged_until=purged_until
    )


class _ReplayedRecords:
    """What the change log makes of the records: by key, the revision that last changed each, and the hash of
    the record then. In a temporary file, because a log may be of more records than the memory holds.

    `compared` counts the records. `last_erasure` is the last revision about an erasure, 0 for none."""

    def __init__(self) -> None:
        self.compared = self.last_erasure = 0
        self._erasing: set[Key] = set()
        self._last = sqlite3.connect("", isolation_level=None)
        self._last.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._last.execute("CREATE TABLE last (key BLOB PRIMARY KEY, revision INTEGER, hash BLOB)")
        self._last.execute("BEGIN")

    @property
    def are_comparable(self) -> bool:
        """Whether no erasure rewrites the log: a record may have two names in it meanwhile. As the log says,
        and not the table of the steps of erasures, which nothing attests."""
        return not self._erasing

    def apply(self, revision: int, mutation: str) -> None:
        """Apply the next change of the log. One that cannot be read does nothing."""
        try:
            change = decode_mutation(mutation)
        except msgspec.MsgspecError:  # the revision is not as it was committed, which its leaf tells
            return
        if isinstance(change.target, Erasure):
            self.last_erasure = revision
            is_under_way = change.target.status is ErasureStatus.ERASING
            (self._erasing.add if is_under_way else self._erasing.discard)(change.key)
        key = _encode(change.key)
        if change.operation is Operation.DELETE:
            self._last.execute("DELETE FROM last WHERE key = ?", (key,))
        else:
            values = (key, revision, _hash(change.target))
            self._last.execute("INSERT OR REPLACE INTO last VALUES (?, ?, ?)", values)

    def differences(self, connection: Connection) -> Iterator[str]:
        """How the records of a database differ, after all changes of its log. Ends the replay."""
        for stored in ENTITY_ROWS.values():
            for rows in stream(connection, select(stored.table)).partitions():
                for record in stored.versioned(rows):
                    yield from self._compare(record.entity, record.revision)
        for key, revision in self._last.execute("SELECT key, revision FROM last ORDER BY revision, key"):
            yield f"{_keys.decode(key)} of revision {revision} is gone"
        self._last.close()

    def _compare(self, entity: Entity, revision: int) -> Iterator[str]:
        self.compared += 1
        key = _encode(entity.key)
        logged = self._last.execute("SELECT revision, hash FROM last WHERE key = ?", (key,)).fetchone()
        if logged is None:
            yield f"{entity.key} is not in the change log"
        elif logged != (revision, _hash(entity)):
            yield f"{entity.key} is not as revision {logged[0]} made it"
        self._last.execute("DELETE FROM last WHERE key = ?", (key,))


def _hash(record: Entity | Key) -> bytes:
    return blake2b(_encode(record), digest_size=_HASH_BYTES).digest()


def _last_purge(connection: Connection) -> tuple[Any, RetentionRule]:
    """The rule of the change log, and the revision that set it, as the log last has them: not as the table of
    the rules says, which nothing attests."""
    return next(_logged(connection, RetainedData.CHANGES), (None, default_rule(RetainedData.CHANGES)))


def _decisions_purged_before(connection: Connection) -> Instant:
    """Before which time logged decisions may be gone by what the log says of their purges."""
    before = 0
    for row, rule in _logged(connection, RetainedData.DECISIONS):
        least = LIMITS[rule.data].min_days
        allowed, kept = (row.committed_at - days * DAY_US for days in (least, max(rule.days or 0, least)))
        # While a purge runs, the log does not say up to when it is complete.
        in_steps = kept if rule.removed and rule.days else 0
        before = max(before, min(allowed, max(rule.complete_since or 0, in_steps)))
    # The clock of the database, by which a purge goes, may be ahead of that of the log.
    return before + PURGE_INTERVAL_US if before else 0


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


def _missing_changes(
    connection: Connection, logged: Any, purge: RetentionRule, leaf_maker: LeafMaker
) -> Iterator[str]:
    """The faults of a purge, as a revision has `logged` it: it went too far, or changes that it had to keep
    are gone.

    Before the cut, the log has the last change of each record. A deletion of such a change cannot pass for
    retention: a later change names the revision that changed the record before, and a record that was not
    changed since is compared with the log. While an erasure rewrites the log, a record has one name up to
    where the erasure is, and another one after that: both are the same here.
    """

    def named_once(version: RecordVersion) -> RecordVersion:
        return version[0], with_subjects(version[1], leaf_maker.subject)

    through = purge.through
    if through is None:
        return
    least_us = LIMITS[RetainedData.CHANGES].min_days * DAY_US
    if purge.complete_since is None or logged.committed_at - purge.complete_since < least_us:
        yield f"the purge in revision {logged.revision} went further than any retention period allows"
    expected, cut = _expected(connection, through), format_instant(purge.complete_since or 0)
    while versions := {named_once(each): each for each in islice(expected, _VERSIONS_AT_ONCE)}:
        there = {named_once(each) for each in _there(connection, versions.values())}
        for revision, key in sorted((versions[each] for each in versions.keys() - there), key=str):
            yield f"revision {revision} has lost the last change of {key} before {cut}"


def _expected(connection: Connection, through: int) -> Iterator[RecordVersion]:
    """The last versions before a cut of the records that were changed since."""
    later = select(_changes).where(
        _changes.c.revision > through, _changes.c.previous <= through, _changes.c.previous > 0
    )
    for row in stream(connection, later):
        yield row.previous, decode_mutation(row.mutation).key


def _there(connection: Connection, versions: Iterable[RecordVersion]) -> set[RecordVersion]:
    wanted = {revision for revision, _ in versions}
    rows = select_by(connection, _changes, ("revision",), [[each] for each in wanted])
    mutations = ((row.revision, decode_mutation(row.mutation)) for row in rows)
    return {(revision, each.key) for revision, each in mutations if each.operation is not Operation.DELETE}


def contents(connection: Connection, *wanted: Any) -> Iterator[_Content]:
    """Every revision with its changes, in order."""
    columns = [column for column in _changes.c if column.name != "revision"]
    statement = (
        select(*_revisions.c, *columns)
        .outerjoin_from(_revisions, _changes, _changes.c.revision == _revisions.c.revision)
        .where(*wanted)
        .order_by(_revisions.c.revision, _changes.c.position)
    )
    rows = stream(connection, statement).mappings()
    for _, grouped in groupby(rows, key=lambda row: row["revision"]):
        found = [dict(row) for row in grouped]
        yield found[0], [row for row in found if row["position"] is not None]
