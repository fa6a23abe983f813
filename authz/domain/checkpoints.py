"""The newest signed checkpoint of a database, which its servers make in turns."""

from __future__ import annotations

from typing import Protocol

import msgspec

from authz.domain.instants import Instant


class SignedCheckpoint(msgspec.Struct, frozen=True):
    """A signed note, the sizes of the trees that it signs, and whether it was published everywhere.

    Nobody makes another before `next_at`: the interval has not passed, or a server is about to.
    """

    note: str = ""
    size: int = 0
    decisions_size: int = 0
    is_published: bool = True
    next_at: Instant = 0


class Checkpoints(Protocol):
    """The newest checkpoint in the database. Every call blocks."""

    def newest(self) -> SignedCheckpoint:
        """The newest; one without a note if none was made yet."""

    def replace(self, seen: SignedCheckpoint, by: SignedCheckpoint) -> bool:
        """Store a checkpoint, unless the newest is no longer the one that was seen; return whether it is
        stored."""
