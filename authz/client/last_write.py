"""The state of the last write of a client, so that its questions see its own writes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from authz.domain.tokens import latest

_KEPT_FOR_S = 600.0
"""Longer than a server answers from a replica that does not follow (AUTHZ_MAX_STALENESS_S). Not forever:
once a database is restored, the state of a write may never come."""


class LastWrite:
    """The token of the last write, for as long as a server may lack that write. Thread-safe."""

    def __init__(self, when_written: Callable[[], None] = lambda: None) -> None:
        """`when_written` is called after each write, before the next question."""
        self._when_written = when_written
        self._lock = threading.Lock()
        self._token = ""
        self._kept_until = 0.0

    def note(self, token: str) -> None:
        """Remember the state after a write. After concurrent writes, the latest state counts."""
        with self._lock:
            self._token = latest(self._token, token)
            self._kept_until = time.monotonic() + _KEPT_FOR_S
        self._when_written()

    def forget(self) -> None:
        """Forget the state, because the database was replaced."""
        with self._lock:
            self._token = ""

    def or_later(self, token: str) -> str:
        """The later of a given state and the state of the last write; empty if there is none."""
        with self._lock:
            kept = self._token if time.monotonic() < self._kept_until else ""
        return latest(kept, token) if kept and token else kept or token
