"""Verifies every logged decision against its leaf, and computes the Merkle tree of the decisions."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from sqlalchemy import Connection, func, select

from authz.domain.instants import format_instant
from authz.domain.tree import leaf_hash
from authz.store import tables
from authz.store.decision_leaves import BatchState, entries_of, leaf_content
from authz.store.engine import stream
from authz.store.kept_changes import decisions_purged_before
from authz.store.leaves import Attestor
from authz.store.stored_tree import RecomputedTree

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
    attestor, purged_before = Attestor(connection), decisions_purged_before(connection)
    counted: int = connection.execute(select(tables.decision_tree.c.size)).scalar_one()
    tree = RecomputedTree("batch {} of the decisions", {*sizes, counted})
    entries = purged = purged_until = 0
    for leaf in stream(connection, select(_leaves).order_by(_leaves.c.number)):
        tree.add(leaf.number, leaf)
        told = f"batch {leaf.number} of the decisions, of {format_instant(leaf.first_at)}, is"
        if leaf.state == BatchState.PURGED.value:
            purged, purged_until = purged + 1, max(purged_until, leaf.last_at)
            if leaf.last_at >= purged_before:
                tree.report(f"{told} gone before its time")
            continue
        found = entries_of(connection, leaf)
        entries += len(found)
        if leaf_hash(leaf_content(attestor, leaf.number, found)).hex() != leaf.hash:
            tree.report(f"{told} not as it was logged")
    if tree.size != counted:
        tree.report(f"the database counts {counted} batches of decisions, and the tree has {tree.size}")
    stored: int = connection.execute(select(func.count()).select_from(tables.decisions)).scalar_one()
    if others := stored - entries:
        tree.report(f"{others} decisions are in no leaf")
    return DecisionTree(
        size=tree.size, roots=tree.roots, faults=tree.faults(), purged=purged, purged_until=purged_until
    )
