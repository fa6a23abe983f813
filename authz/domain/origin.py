"""Where a write comes from, as the change log keeps it."""

from __future__ import annotations

import msgspec

MAX_REASON_LENGTH = 1024


class Origin(msgspec.Struct, frozen=True):
    """Who writes, as authenticated by the transport, why, and in which request."""

    actor: str = "unauthenticated"
    reason: str = ""
    request_id: str = ""
