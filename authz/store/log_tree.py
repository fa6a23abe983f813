"""Verifies every revision of the change log against its leaf, and the records against the log; computes the
Merkle tree."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Connection, Row, select

from authz.store import tables
from authz.store.connections import expecting_long_statements
from authz.store.decision_tree import DecisionTree, read_decision_tree
from authz.store.engine import open_engine, read_transaction, stream
from authz.store.erasure_steps import rewrites_history
from authz.store.kept_changes import last_purge, missing_changes
from authz.store.leaves import Attestor, purged_hashes
from authz.store.log_reader import read_head
from authz.store.replayed_records import ReplayedRecords
from authz.store.schema import require_current
from authz.store.stored_tree import RecomputedTree

_Content: TypeAlias = tuple[dict[str, Any], list[dict[str, Any]]]
"""A revision and its changes."""
_changes, _revisions, _leaves = tables.changes, tables.revisions, tables.leaves


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


def read_trees(
    url: str,
    sizes: Collection[int] = (),
    decision_sizes: Collection[int] = (),
    *,
    password_file: str = "",
) -> tuple[LogTree, DecisionTree]:
    """Verify every revision, every record and every logged decision of a database; return its trees, with the
    roots of their full sizes, too. Raises as `open_store`.
    """
    engine = open_engine(url, password_file)
    try:
        require_current(engine)
        with read_transaction(engine) as connection, expecting_long_statements(connection):
            tree = _read_tree(connection, {*sizes, read_head(connection).revision})
            return tree, read_decision_tree(connection, decision_sizes)
    finally:
        engine.dispose()


def _read_tree(connection: Connection, sizes: Collection[int]) -> LogTree:
    purge, attestor, records = last_purge(connection), Attestor(connection), ReplayedRecords()
    tree, through, erased = RecomputedTree("revision {}", sizes), purge.through or 0, 0
    for revision, leaf, content in _revisions_with_leaves(connection):
        for row in () if content is None else content[1]:
            records.apply(revision, row["mutation"])
        if leaf is None:
            tree.report(f"revision {revision} has no leaf")
            continue
        tree.add(revision, leaf)
        if content is not None:
            found = attestor.leaf(*content, leaf.seals.split(" "), purged_hashes(leaf.purged))
            erased += found.erased
            if found.hash != leaf.hash or (leaf.purged and revision > through):
                tree.report(f"revision {revision} is not as it was committed")
        elif revision > through:
            tree.report(f"revision {revision} is gone")
    for fault in missing_changes(connection, purge):
        tree.report(fault)
    is_comparable = not rewrites_history(connection)
    for fault in records.differences(connection) if is_comparable else ():
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
        records=records.compared if is_comparable else None,
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
