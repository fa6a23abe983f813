"""Who received data about subjects: callers that asked, and callers that watch changes."""

from __future__ import annotations

import msgspec

from authz.domain.instants import Instant


class AskerReport(msgspec.Struct, frozen=True):
    """A caller that asked about a subject, how often, and when first and last, by the decisions that are
    kept."""

    caller: str
    asked: int
    first_at: Instant
    last_at: Instant

    @property
    def times(self) -> str:
        """How often it asked, such as `3 times`."""
        return "once" if self.asked == 1 else f"{self.asked} times"


class Watcher(msgspec.Struct, frozen=True):
    """A caller that watches changes, and when its last watch began or was sent an erasure.

    `sent` is the revision of the last erasure that it was sent. By resuming from a revision,
    `acknowledged`, it says that it has processed everything before.
    """

    caller: str
    sent: int
    acknowledged: int
    seen_at: Instant


class WatcherReport(msgspec.Struct, frozen=True):
    """Of one erasure, whether a watcher was sent it, and whether it has acknowledged it since."""

    caller: str
    was_sent: bool
    has_acknowledged: bool
    seen_at: Instant
