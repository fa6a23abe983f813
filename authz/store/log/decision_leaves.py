"""The logged decisions as the leaves of a Merkle tree: each leaf has the entries of one batch.

A leaf names each subject by a keyed hash, and leaves out the request ids, which an erasure empties: so an
erasure changes no leaf.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence, Set
from enum import StrEnum
from itertools import accumulate, takewhile
from operator import attrgetter
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, delete, insert, or_, select, update

from authz.domain.decision_log import DecisionEntry
from authz.domain.ids import Subject
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
_MAX_BATCHES_A_PURGE = 1000
"""Each step of a purge is a revision, and each process stores two batches per second, however small."""


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
    batches = connection.execute(kept.limit(_MAX_BATCHES_A_PURGE)).all()
    aged = [*takewhile(lambda leaf: leaf.last_at < before, batches)]
    sizes = [*accumulate(leaf.entries for leaf in aged)]
    due = aged[: max(1, bisect_right(sizes, at_most))]
    if not due:
        return 0, 0, True
    _keep_held(connection, due, held)
    purged = and_(
        _leaves.c.state == BatchState.KEPT.value, _leaves.c.number.between(due[0].number, due[-1].number)
    )
    entries = and_(_are_of(due), _decisions.c.leaf.in_(select(_leaves.c.number).where(purged)))
    deleted = connection.execute(delete(_decisions).where(entries)).rowcount
    connection.execute(update(_leaves).where(purged).values(state=BatchState.PURGED.value))
    return deleted, due[-1].number, len(due) == len(aged) < _MAX_BATCHES_A_PURGE


def _keep_held(connection: Connection, leaves: Sequence[Row[Any]], held: Set[str]) -> None:
    """Mark those of some batches that have an entry by or about somebody in `held`, each as held by one."""
    if not held:
        return
    columns = (_decisions.c.leaf, *(_decisions.c[name] for name in _SUBJECTS))
    rows = connection.execute(select(*columns).where(_are_of(leaves)))
    holders = {row.leaf: name for row in rows for name in _subjects(row) if name in held}
    for holder in {*holders.values()}:
        numbers = [number for number, each in holders.items() if each == holder]
        theirs = update(_leaves).where(_leaves.c.number.in_(numbers))
        connection.execute(theirs.values(state=BatchState.HELD.value, held_by=holder))


def release_batches(connection: Connection, holder: Subject) -> None:
    """Let the next step of a purge look again at what it kept for the hold of somebody; also at what was kept
    before it was noted for whom."""
    theirs = or_(_leaves.c.held_by == str(holder), _leaves.c.held_by.is_(None))
    held = update(_leaves).where(_leaves.c.state == BatchState.HELD.value, theirs)
    connection.execute(held.values(state=BatchState.KEPT.value, held_by=None))


def lock_tree(connection: Connection) -> Row[Any]:
    """The size of the tree. No other transaction appends meanwhile."""
    return connection.execute(select(_tree).with_for_update()).one()


def _are_of(leaves: Sequence[Row[Any]]) -> Any:
    """Whether a decision is in one of some leaves, which are in order, or in one between them; the key of
    the table finds it by its time."""
    first_at, last_at = min(leaf.first_at for leaf in leaves), max(leaf.last_at for leaf in leaves)
    numbers = _decisions.c.leaf.between(leaves[0].number, leaves[-1].number)
    return and_(_decisions.c.at.between(first_at, last_at), numbers)


def _is_of(leaf: Row[Any]) -> Any:
    """Whether a decision is in a leaf; the key of the table finds it by its time."""
    return and_(_decisions.c.at.between(leaf.first_at, leaf.last_at), _decisions.c.leaf == leaf.number)
