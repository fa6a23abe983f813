"""Reads the stored tree of a log: few rows for a root, some hundred for a proof, however large the log."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import msgspec
from sqlalchemy import Column, Connection, Row, Table

from authz.domain.errors import precondition_failed
from authz.domain.tree import MerkleTree, Range, StoredLeaf, leaves_for, parts_of, range_hash
from authz.store import tables
from authz.store.bulk import select_by

_MAX_FAULTS = 20


class StoredTree(msgspec.Struct, frozen=True):
    """The table that has a leaf in each row, with its number, and `hash` and `part` as in `tables.leaves`."""

    table: Table
    number: Column[Any]


class RecomputedTree:
    """The tree of the stored leaves, which are added in order, and the faults in it that `report` collects.

    `number` is what a leaf is called, such as `revision {}`. `roots` has the roots of `sizes`, as far as the
    tree has them.
    """

    def __init__(self, number: str, sizes: Collection[int]) -> None:
        self._number = number
        self._sizes = sizes
        self._tree = MerkleTree()
        self.roots = {0: self._tree.root()}
        self._faults: list[str] = []
        self._more_faults = 0

    @property
    def size(self) -> int:
        """The number of leaves."""
        return self._tree.size

    def add(self, number: int, leaf: Row[Any]) -> None:
        """Add the next leaf."""
        if number != self.size + 1:
            self.report(f"{self._number.format(self.size + 1)} has no leaf")
        part = self._tree.add(bytes.fromhex(leaf.hash)).hex()
        if (leaf.part or leaf.hash) != part:
            self.report(f"the hash of the tree at {self._number.format(number)} is not that of its leaves")
        if self.size in self._sizes:
            self.roots[self.size] = self._tree.root()

    def report(self, fault: str) -> None:
        """Add a fault."""
        if len(self._faults) < _MAX_FAULTS:
            self._faults.append(fault)
        else:
            self._more_faults += 1

    def faults(self) -> tuple[str, ...]:
        """The first faults, and how many more there are."""
        return (*self._faults, *([f"and {self._more_faults} more"] if self._more_faults else []))


CHANGES = StoredTree(tables.leaves, tables.leaves.c.revision)
DECISIONS = StoredTree(tables.decision_leaves, tables.decision_leaves.c.number)


def resume(connection: Connection, stored: StoredTree, size: int) -> MerkleTree | None:
    """The tree of the first leaves, to which more can be added. None if stored hashes are missing."""
    parts = parts_of((0, size))
    found = _read(connection, stored, [part.end for part in parts])
    if len(found) < len(parts):
        return None
    return MerkleTree(size, [found[part.end].part for part in parts])


def next_part(tree: MerkleTree | None, leaf: str) -> str | None:
    """Add the hash of the next leaf to a tree; return its `part` as it is stored, None without a tree."""
    part = None if tree is None else tree.add(bytes.fromhex(leaf)).hex()
    return None if part == leaf else part


def range_hashes(connection: Connection, stored: StoredTree, ranges: Iterable[Range]) -> list[bytes]:
    """The hashes of some ranges. Raises `FailedPreconditionError` if the tree has not all of them."""
    wanted = [*ranges]
    numbers = {number for each in wanted for number in leaves_for(each)}
    found = _read(connection, stored, numbers)
    if len(found) < len(numbers):
        raise precondition_failed("stored hashes of the log are missing; see which with `authz audit verify`")
    return [range_hash(each, found) for each in wanted]


def _read(connection: Connection, stored: StoredTree, numbers: Iterable[int]) -> dict[int, StoredLeaf]:
    """The leaves by number, without those whose stored hash is missing."""
    name, found = stored.number.name, dict[int, StoredLeaf]()
    for row in select_by(connection, stored.table, (name,), [[number] for number in numbers]):
        number: int = getattr(row, name)
        if row.part is not None or number & 1:
            found[number] = StoredLeaf(bytes.fromhex(row.hash), bytes.fromhex(row.part or row.hash))
    return found
