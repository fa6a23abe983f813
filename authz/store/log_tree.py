"""Verifies every revision of the change log against its leaf, and the records against the log; computes the
Merkle tree."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Connection, Row, select

from authz.domain.entities import RetentionRule
from authz.domain.tree import MerkleTree
from authz.store import tables
from authz.store.connections import expecting_long_statements
from authz.store.decision_tree import DecisionTree, read_decision_tree
from authz.store.engine import open_engine, read_transaction
from authz.store.erasure_steps import rewrites_history
from authz.store.kept_changes import last_purge, missing_changes
from authz.store.leaves import Attestor, purged_hashes
from authz.store.log_reader import read_head
from authz.store.replayed_records import ReplayedRecords
from authz.store.schema import require_current

_MAX_FAULTS = 20
_CHUNK = 1000
_STREAMED = {"yield_per": _CHUNK}
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
    purge = last_purge(connection)
    verifier, records = _Verifier(Attestor(connection), sizes, purge.through or 0), ReplayedRecords()
    found = _replaying(contents(connection), records)
    content = next(found, None)
    leaves = select(_leaves).order_by(_leaves.c.revision)
    for leaf in connection.execute(leaves, execution_options=_STREAMED):
        while content is not None and content[0]["revision"] < leaf.revision:
            verifier.report_missing_leaf(content)
            content = next(found, None)
        if content is not None and content[0]["revision"] == leaf.revision:
            verifier.verify(leaf, content)
            content = next(found, None)
        else:
            verifier.verify(leaf, None)
    while content is not None:
        verifier.report_missing_leaf(content)
        content = next(found, None)
    verifier.report(missing_changes(connection, purge))
    is_comparable = not rewrites_history(connection)
    if is_comparable:
        verifier.report(records.differences(connection))
    return verifier.result(read_head(connection).revision, purge, records.compared if is_comparable else None)


def _replaying(found: Iterator[_Content], records: ReplayedRecords) -> Iterator[_Content]:
    for head, rows in found:
        for row in rows:
            records.apply(head["revision"], row["mutation"])
        yield head, rows


class _Verifier:
    """Verifies leaves in order, and collects the faults."""

    def __init__(self, attestor: Attestor, sizes: Collection[int], through: int) -> None:
        self._tree = MerkleTree()
        self._attestor = attestor
        self._sizes = sizes
        self._roots = {0: self._tree.root()}
        self._faults: list[str] = []
        self._through = through
        self._erased = self._more_faults = 0

    def verify(self, leaf: Row[Any], content: _Content | None) -> None:
        """Verify the next leaf and its revision; None for a revision that is gone."""
        if leaf.revision != self._tree.size + 1:
            self._fault(f"revision {self._tree.size + 1} has no leaf")
        part = self._tree.add(bytes.fromhex(leaf.hash)).hex()
        if (leaf.part or leaf.hash) != part:
            self._fault(f"the hash of the tree at revision {leaf.revision} is not that of its leaves")
        if self._tree.size in self._sizes:
            self._roots[self._tree.size] = self._tree.root()
        is_purgeable = leaf.revision <= self._through
        if content is None:
            if not is_purgeable:
                self._fault(f"revision {leaf.revision} is gone")
            return
        found = self._attestor.leaf(*content, leaf.seals.split(" "), purged_hashes(leaf.purged))
        self._erased += found.erased
        if found.hash != leaf.hash or (leaf.purged and not is_purgeable):
            self._fault(f"revision {leaf.revision} is not as it was committed")

    def report(self, faults: Iterable[str]) -> None:
        """Add faults that were found elsewhere."""
        for fault in faults:
            self._fault(fault)

    def report_missing_leaf(self, content: _Content) -> None:
        """Add the fault of a revision without a leaf."""
        self._fault(f"revision {content[0]['revision']} has no leaf")

    def result(self, head: int, purge: RetentionRule, records: int | None) -> LogTree:
        """All of it, in a database that counts `head` revisions. See `LogTree` for `records`."""
        if self._tree.size != head:
            self._fault(f"the database counts {head} revisions, and the tree has {self._tree.size}")
        more = [f"and {self._more_faults} more"] if self._more_faults else []
        return LogTree(
            size=self._tree.size,
            roots=self._roots,
            faults=(*self._faults, *more),
            purged=purge.removed or 0,
            through=purge.through or 0,
            erased=self._erased,
            records=records,
        )

    def _fault(self, text: str) -> None:
        if len(self._faults) < _MAX_FAULTS:
            self._faults.append(text)
        else:
            self._more_faults += 1


def contents(connection: Connection, *wanted: Any) -> Iterator[_Content]:
    """Every revision with its changes, in order."""
    columns = [column for column in _changes.c if column.name != "revision"]
    statement = (
        select(*_revisions.c, *columns)
        .outerjoin_from(_revisions, _changes, _changes.c.revision == _revisions.c.revision)
        .where(*wanted)
        .order_by(_revisions.c.revision, _changes.c.position)
    )
    rows = connection.execute(statement, execution_options=_STREAMED).mappings()
    for _, grouped in groupby(rows, key=lambda row: row["revision"]):
        found = [dict(row) for row in grouped]
        yield found[0], [row for row in found if row["position"] is not None]
