"""The logged decisions as the leaves of a Merkle tree: each leaf has the entries of one batch.

A leaf names each subject by a keyed hash, and leaves out the request ids, which an erasure empties: so an
erasure changes no leaf.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from enum import StrEnum
from operator import attrgetter
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, delete, insert, select, update

from authz.domain.decision_log import DecisionEntry
from authz.domain.instants import Instant
from authz.domain.tree import leaf_hash
from authz.store import tables
from authz.store.log.leaves import LeafMaker
from authz.store.log.stored_tree import DECISIONS, next_part, resume

_FORMAT = "authz-decisions-1"
_SUBJECTS = ("caller", "person", "subject")
_OTHERS = tuple(name for name in DecisionEntry.__struct_fields__ if name not in (*_SUBJECTS, "request_id"))
_subjects, _others = attrgetter(*_SUBJECTS), attrgetter(*_OTHERS)
_place = attrgetter("at", "decision_id")
_leaves, _decisions, _tree = tables.decision_leaves, tables.decisions, tables.decision_tree
_MAX_BATCHES_A_PURGE = 50


class BatchState(StrEnum):
    """What has become of the entries of a batch."""

    KEPT = "KEPT"
    HELD = "HELD"
    """A hold of somebody keeps them from being purged."""
    PURGED = "PURGED"


def leaf_content(leaf_maker: LeafMaker, number: int, entries: Sequence[DecisionEntry | Row[Any]]) -> bytes:
    """What is hashed of a leaf with these entries."""
    fields = [
        (*_others(entry), *map(leaf_maker.named, _subjects(entry))) for entry in sorted(entries, key=_place)
    ]
    return msgspec.json.encode([_FORMAT, number, fields])


def entries_of(connection: Connection, leaf: Row[Any]) -> Sequence[Row[Any]]:
    """The entries of a leaf; none if they were purged."""
    return connection.execute(select(_decisions).where(_is_of(leaf))).all()


def extent_of(entries: Sequence[DecisionEntry | Row[Any]]) -> tuple[int, Instant, Instant]:
    """How many entries there are, and when the first and the last of them were made; 0 for none."""
    times = [entry.at for entry in entries]
    return len(times), min(times, default=0), max(times, default=0)


def append_leaf(connection: Connection, entries: Sequence[DecisionEntry]) -> int:
    """Store the next leaf, in the transaction that stores its entries; return its number."""
    number: int = lock_tree(connection).size + 1
    hashed = leaf_hash(leaf_content(LeafMaker(connection), number, entries)).hex()
    count, first_at, last_at = extent_of(entries)
    values = {
        "number": number,
        "hash": hashed,
        "part": next_part(resume(connection, DECISIONS, number - 1), hashed),
        "entries": count,
        "first_at": first_at,
        "last_at": last_at,
        "state": BatchState.KEPT.value,
    }
    connection.execute(insert(_leaves).values(**values))
    connection.execute(update(_tree).values(size=number))
    return number


def oldest_batch(connection: Connection) -> Instant | None:
    """When the newest entry was logged of the first batch that may be purged; None if there is none."""
    kept = select(_leaves.c.last_at).where(_leaves.c.state == BatchState.KEPT.value)
    found: Instant | None = connection.execute(kept.order_by(_leaves.c.number).limit(1)).scalar()
    return found


def purge_batches(
    connection: Connection, before: Instant, at_most: int, held: Set[str]
) -> tuple[int, int, bool]:
    """Delete the entries of the first batches of which each entry is from before a time: of one batch at
    least, and of others while they have `at_most` entries together. Return how many, the number of the last
    of these batches (0 for none), and whether that is all.

    The leaves stay. A batch with an entry by or about somebody in `held` stays until `release_batches`.
    """
    lock_tree(connection)
    kept = select(_leaves).where(_leaves.c.state == BatchState.KEPT.value).order_by(_leaves.c.number)
    deleted = through = 0
    batches = connection.execute(kept.limit(_MAX_BATCHES_A_PURGE)).all()
    for leaf in batches:
        if leaf.last_at >= before:
            return deleted, through, True
        if deleted and deleted + leaf.entries > at_most:
            return deleted, through, False
        state, through = BatchState.PURGED, leaf.number
        if held and any(not held.isdisjoint(_subjects(row)) for row in entries_of(connection, leaf)):
            state = BatchState.HELD
        else:
            deleted += connection.execute(delete(_decisions).where(_is_of(leaf))).rowcount
        connection.execute(update(_leaves).where(_leaves.c.number == leaf.number).values(state=state.value))
    return deleted, through, len(batches) < _MAX_BATCHES_A_PURGE


def release_batches(connection: Connection) -> None:
    """Let the next step of a purge look again at what it kept for a hold."""
    held = update(_leaves).where(_leaves.c.state == BatchState.HELD.value)
    connection.execute(held.values(state=BatchState.KEPT.value))


def lock_tree(connection: Connection) -> Row[Any]:
    """The size of the tree. No other transaction appends meanwhile."""
    return connection.execute(select(_tree).with_for_update()).one()


def _is_of(leaf: Row[Any]) -> Any:
    """Whether a decision is in a leaf; the key of the table finds it by its time."""
    return and_(_decisions.c.at.between(leaf.first_at, leaf.last_at), _decisions.c.leaf == leaf.number)
