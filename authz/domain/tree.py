"""A Merkle tree over an append-only list of leaves.

Source: https://www.rfc-editor.org/rfc/rfc9162#section-2.1
"""

from __future__ import annotations

from hashlib import sha256

_LEAF, _NODE = b"\x00", b"\x01"
EMPTY_ROOT = sha256().digest()


def leaf_hash(content: bytes) -> bytes:
    """The hash of a leaf."""
    return sha256(_LEAF + content).digest()


class MerkleTree:
    """Keeps one hash for each complete part of the tree: as many as the binary digits of its size."""

    def __init__(self) -> None:
        self.size = 0
        self._parts: list[bytes] = []
        """Of the complete parts, the largest, which is the first, first."""

    def add(self, leaf: bytes) -> None:
        """Add the hash of the next leaf."""
        part, size = leaf, self.size
        while size & 1:
            part = _node(self._parts.pop(), part)
            size >>= 1
        self._parts.append(part)
        self.size += 1

    def root(self) -> bytes:
        """The hash of the whole tree."""
        if not self._parts:
            return EMPTY_ROOT
        root = self._parts[-1]
        for part in reversed(self._parts[:-1]):
            root = _node(part, root)
        return root


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(_NODE + left + right).digest()
