"""Verifies every logged decision against its leaf, and computes the Merkle tree of the decisions."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, func, select

from authz.domain.instants import format_instant
from authz.domain.tree import MerkleTree, leaf_hash
from authz.store import tables
from authz.store.decision_leaves import BatchState, entries_of, leaf_content
from authz.store.kept_changes import decisions_purged_before
from authz.store.leaves import Attestor

_CHUNK = 1000
_leaves = tables.decision_leaves


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


def read_decision_tree(connection: Connection, sizes: Collection[int]) -> DecisionTree:
    """Verify every logged decision; return the tree, with the root of its full size, too."""
    state = connection.execute(select(tables.decision_tree)).one()
    tree, verifier, faults = MerkleTree(), _Verifier(connection), list[str]()
    roots, wanted = {0: tree.root()}, {*sizes, state.size}
    order = select(_leaves).order_by(_leaves.c.number)
    for leaf in connection.execute(order, execution_options={"yield_per": _CHUNK}):
        if leaf.number != tree.size + 1:
            faults.append(f"batch {tree.size + 1} of the decisions has no leaf")
        part = tree.add(bytes.fromhex(leaf.hash))
        if tree.size in wanted:
            roots[tree.size] = tree.root()
        if (leaf.part or leaf.hash) != part.hex():
            faults.append(f"the hash of the tree at batch {leaf.number} is not that of its leaves")
        faults += verifier.verify(leaf)
    if tree.size != state.size:
        faults.append(f"the database counts {state.size} batches of decisions, and the tree has {tree.size}")
    stored: int = connection.execute(select(func.count()).select_from(tables.decisions)).scalar_one()
    if others := stored - verifier.entries:
        faults.append(f"{others} decisions are in no leaf")
    return DecisionTree(
        size=tree.size,
        roots=roots,
        faults=tuple(faults),
        purged=verifier.purged,
        purged_until=verifier.purged_until,
    )


class _Verifier:
    """Verifies the entries of leaves in order, and counts them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._attestor = Attestor(connection)
        self._purged_before = decisions_purged_before(connection)
        self.entries = self.purged = self.purged_until = 0

    def verify(self, leaf: Row[Any]) -> Iterator[str]:
        """Verify the entries of the next leaf; yield the fault, if there is one."""
        told = f"batch {leaf.number} of the decisions, of {format_instant(leaf.first_at)}, is"
        if leaf.state == BatchState.PURGED.value:
            self.purged += 1
            self.purged_until = max(self.purged_until, leaf.last_at)
            if leaf.last_at >= self._purged_before:
                yield f"{told} gone before its time"
            return
        entries = entries_of(self._connection, leaf)
        self.entries += len(entries)
        content = leaf_content(self._attestor, leaf.number, entries)
        if leaf_hash(content).hex() != leaf.hash:
            yield f"{told} not as it was logged"
