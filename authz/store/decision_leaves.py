"""The logged decisions as the leaves of a Merkle tree: each leaf has the entries of one batch.

A leaf names each subject by a keyed hash, and leaves out the request ids, which an erasure empties: so an
erasure changes no leaf.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, delete, insert, select, update

from authz.domain.decision_log import DecisionEntry
from authz.domain.instants import Instant
from authz.domain.tree import leaf_hash
from authz.store import tables
from authz.store.leaves import Attestor
from authz.store.stored_tree import DECISIONS, resume

_FORMAT = "authz-decisions-1"
_SUBJECTS = ("caller", "person", "subject")
_OTHERS = tuple(name for name in DecisionEntry.__struct_fields__ if name not in (*_SUBJECTS, "request_id"))
_subjects, _others = attrgetter(*_SUBJECTS), attrgetter(*_OTHERS)
_place = attrgetter("at", "decision_id")
_leaves, _decisions, _tree = tables.decision_leaves, tables.decisions, tables.decision_tree
_MAX_LEAVES_A_PURGE = 10


def leaf_content(attestor: Attestor, number: int, entries: Sequence[DecisionEntry | Row[Any]]) -> bytes:
    """What is hashed of a leaf with these entries."""
    attested = [
        (*_others(entry), *map(attestor.named, _subjects(entry))) for entry in sorted(entries, key=_place)
    ]
    return msgspec.json.encode([_FORMAT, number, attested])


def entries_of(connection: Connection, leaf: Row[Any]) -> Sequence[Row[Any]]:
    """The entries of a leaf; none if they were purged."""
    return connection.execute(select(_decisions).where(_is_of(leaf))).all()


def append_leaf(connection: Connection, entries: Sequence[DecisionEntry]) -> int:
    """Store the next leaf, in the transaction that stores its entries; return its number."""
    number: int = _hold(connection).size + 1
    hashed = leaf_hash(leaf_content(Attestor(connection), number, entries))
    tree = resume(connection, DECISIONS, number - 1)
    part = None if tree is None else tree.add(hashed)
    values = {
        "number": number,
        "hash": hashed.hex(),
        "part": None if part is None or part == hashed else part.hex(),
        "entries": len(entries),
        "first_at": min(entry.at for entry in entries),
        "last_at": max(entry.at for entry in entries),
    }
    connection.execute(insert(_leaves).values(**values))
    connection.execute(update(_tree).values(size=number))
    return number


def purge_leaves(connection: Connection, before: Instant, at_most: int) -> None:
    """Delete the entries of the oldest leaves, of which each entry is from before a time: of one leaf at
    least, and of others while they have `at_most` entries together. The hashes stay."""
    purged = _hold(connection).purged
    following = select(_leaves).where(_leaves.c.number > purged).order_by(_leaves.c.number)
    deleted = 0
    for leaf in connection.execute(following.limit(_MAX_LEAVES_A_PURGE)).all():
        deleted += leaf.entries
        if leaf.last_at >= before or (deleted > at_most and leaf.number > purged + 1):
            break
        connection.execute(delete(_decisions).where(_is_of(leaf)))
        connection.execute(update(_tree).values(purged=leaf.number))


def _hold(connection: Connection) -> Row[Any]:
    """The size of the tree, and how many leaves were purged. No other transaction appends meanwhile."""
    return connection.execute(select(_tree).with_for_update()).one()


def _is_of(leaf: Row[Any]) -> Any:
    """Whether a decision is in a leaf; the key of the table finds it by its time."""
    return and_(_decisions.c.at.between(leaf.first_at, leaf.last_at), _decisions.c.leaf == leaf.number)
