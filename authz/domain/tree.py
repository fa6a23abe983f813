"""A Merkle tree over an append-only list of leaves, and proofs about it.

A part of the tree is complete if it has 2^height leaves and begins at a multiple of that: its hash never
changes. Source: https://www.rfc-editor.org/rfc/rfc9162#section-2.1
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from hashlib import sha256
from typing import NamedTuple, TypeAlias

_LEAF, _NODE = b"\x00", b"\x01"
EMPTY_ROOT = sha256().digest()
Range: TypeAlias = tuple[int, int]
"""The leaves after the first number, up to the second."""


class StoredLeaf(NamedTuple):
    """A leaf, and the hash of the largest complete part that ends with it."""

    leaf: bytes
    part: bytes


class Part(NamedTuple):
    """A complete part of a tree: 2^height leaves, of which `end` is the number of the last."""

    end: int
    height: int


def leaf_hash(content: bytes) -> bytes:
    """The hash of a leaf."""
    return sha256(_LEAF + content).digest()


class MerkleTree:
    """Keeps one hash for each complete part of the tree: as many as the binary digits of its size."""

    def __init__(self, size: int = 0, parts: Sequence[bytes] = ()) -> None:
        """`parts` are the hashes of `parts_of((0, size))`."""
        self.size = size
        self._parts = [*parts]

    def add(self, leaf: bytes) -> bytes:
        """Add the hash of the next leaf; return that of the largest complete part that ends with it."""
        part, size = leaf, self.size
        while size & 1:
            part = _node(self._parts.pop(), part)
            size >>= 1
        self._parts.append(part)
        self.size += 1
        return part

    def root(self) -> bytes:
        """The hash of the whole tree."""
        return _joined(self._parts)


def parts_of(leaves: Range) -> list[Part]:
    """The complete parts that a range consists of, the largest first. It begins where a part may begin."""
    end, size, found = leaves[0], leaves[1] - leaves[0], []
    for height in reversed(range(size.bit_length())):
        if size >> height & 1:
            end += 1 << height
            found.append(Part(end, height))
    return found


def inclusion_ranges(number: int, size: int) -> list[Range]:
    """The ranges whose hashes prove that a tree has a leaf, in the order of the proof. 1 ≤ number ≤ size."""
    start, end, found = 0, size, list[Range]()
    while end - start > 1:
        middle = start + _split(end - start)
        if number <= middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((start, middle))
            start = middle
    return found[::-1]


def consistency_ranges(first: int, second: int) -> list[Range]:
    """The ranges whose hashes prove that one tree begins another, in the order of the proof.

    1 ≤ first ≤ second."""
    start, end, found = 0, second, list[Range]()
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((start, middle))
            start = middle
    if start:
        found.append((start, end))
    return found[::-1]


def leaves_for(leaves: Range) -> Iterator[int]:
    """The numbers of the stored leaves from which `range_hash` makes the hash of a range."""
    for end, height in parts_of(leaves):
        while not _is_largest(end, height) and height:
            height -= 1  # noqa: PLW2901  walks down
            yield end - (1 << height)
        yield end


def range_hash(leaves: Range, stored: Mapping[int, StoredLeaf]) -> bytes:
    """The hash of a range, from the stored leaves that `leaves_for` names."""
    return _joined([_part_hash(part, stored) for part in parts_of(leaves)])


def _part_hash(part: Part, stored: Mapping[int, StoredLeaf]) -> bytes:
    end, height = part
    if _is_largest(end, height):
        return stored[end].part
    if not height:
        return stored[end].leaf
    left = Part(end - (1 << height - 1), height - 1)
    return _node(_part_hash(left, stored), _part_hash(Part(end, height - 1), stored))


def _is_largest(end: int, height: int) -> bool:
    return end & -end == 1 << height


def root_of_inclusion(leaf: bytes, number: int, size: int, hashes: Sequence[bytes]) -> bytes | None:
    """The root of a tree that has this leaf, if the hashes prove that; None if they cannot.

    Source: https://www.rfc-editor.org/rfc/rfc9162#section-2.1.3.2
    """
    place, last, root = number - 1, size - 1, leaf
    if not 0 <= place <= last:
        return None
    for each in hashes:
        if not last:
            return None
        if place & 1 or place == last:
            root = _node(each, root)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            root = _node(root, each)
        place, last = place >> 1, last >> 1
    return None if last else root


def roots_of_consistency(
    first: int, first_root: bytes, second: int, hashes: Sequence[bytes]
) -> tuple[bytes, bytes] | None:
    """The roots of two trees of which the first begins the second, if the hashes prove that; None if they
    cannot.

    Source: https://www.rfc-editor.org/rfc/rfc9162#section-2.1.4.2
    """
    if not 0 < first <= second or (first == second) is not (not hashes):
        return None
    if first == second:
        return first_root, first_root
    path = [first_root, *hashes] if first & first - 1 == 0 else [*hashes]
    place, last = first - 1, second - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    before = after = path[0]
    for each in path[1:]:
        if not last:
            return None
        if place & 1 or place == last:
            before, after = _node(each, before), _node(each, after)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            after = _node(after, each)
        place, last = place >> 1, last >> 1
    return None if last else (before, after)


def _split(size: int) -> int:
    """The largest power of two that is smaller than a size."""
    return 1 << (size - 1).bit_length() - 1


def _joined(parts: Sequence[bytes]) -> bytes:
    return reduce(lambda right, left: _node(left, right), reversed(parts)) if parts else EMPTY_ROOT


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(_NODE + left + right).digest()
