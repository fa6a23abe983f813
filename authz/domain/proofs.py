"""Proofs about the tree of a log, which anybody can verify who has a signed checkpoint of it.

The servers of a database make its checkpoints in turns.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from hashlib import sha256
from typing import Protocol

import msgspec

from authz.domain.instants import Instant
from authz.domain.tree import leaf_hash, root_of_inclusion, roots_of_consistency


class AuditLog(StrEnum):
    """A log with a tree of its own: a leaf is a revision, or a batch of logged decisions."""

    CHANGES = "CHANGES"
    DECISIONS = "DECISIONS"


class InclusionProof(msgspec.Struct, frozen=True):
    """That the tree of the first `size` leaves has the leaf `number`, counted from 1.

    `content` is what is hashed: a batch of decisions, or a revision with the hashes of its `changes`, with
    keyed hashes for subjects and texts. Either is empty if it is not kept any more, or too large for an
    answer.
    """

    number: int
    size: int
    leaf: bytes
    hashes: tuple[bytes, ...]
    content: bytes = b""
    changes: tuple[bytes, ...] = ()

    def holds_for(self, root: bytes) -> bool:
        """Whether a tree of this size with this root has the leaf, and the content, if there is any."""
        if self.content and leaf_hash(self.content) != self.leaf:
            return False
        if not all(sha256(each).hexdigest().encode() in self.content for each in self.changes):
            return False
        return root_of_inclusion(self.leaf, self.number, self.size, self.hashes) == root


class ConsistencyProof(msgspec.Struct, frozen=True):
    """That the first `first` leaves of a tree of `second` leaves are those of an earlier tree."""

    first: int
    second: int
    hashes: tuple[bytes, ...]

    def holds_for(self, first_root: bytes, second_root: bytes) -> bool:
        """Whether a tree with the first root begins the one with the second."""
        found = roots_of_consistency(self.first, first_root, self.second, self.hashes)
        return found == (first_root, second_root)


class Proofs(Protocol):
    """Proofs about the logs in the database. Every call blocks, and reads some hundred rows at most.

    Raises `InvalidArgumentError` for sizes that the tree does not have, and `FailedPreconditionError` if
    stored hashes are missing.
    """

    def size(self, log: AuditLog) -> int:
        """The size of the tree now."""

    def root(self, log: AuditLog, size: int) -> bytes:
        """The root of the tree of the first `size` leaves."""

    def inclusion(self, log: AuditLog, number: int, size: int) -> InclusionProof:
        """That the tree of the first `size` leaves has a leaf. 1 ≤ number ≤ size."""

    def consistency(self, log: AuditLog, first: int, second: int) -> ConsistencyProof:
        """That a tree begins another. 1 ≤ first ≤ second."""


class SignedCheckpoint(msgspec.Struct, frozen=True):
    """A signed note, the sizes of the trees that it signs, and the names of the destinations that have it.

    Nobody makes another before `next_at`: the interval has not passed, or a server is about to.
    """

    note: str = ""
    size: int = 0
    decisions_size: int = 0
    published_to: frozenset[str] = frozenset()
    next_at: Instant = 0

    def missing_at(self, destinations: Iterable[str]) -> frozenset[str]:
        """The destinations that do not have the note, if there is one."""
        return frozenset(destinations if self.note else ()) - self.published_to


class Checkpoints(Protocol):
    """The newest checkpoint in the database. Every call blocks."""

    def newest(self) -> SignedCheckpoint:
        """The newest; one without a note if none was made yet."""

    def replace(self, seen: SignedCheckpoint, by: SignedCheckpoint) -> bool:
        """Store a checkpoint, unless the newest is no longer the one that was seen; return whether it is
        stored."""
