"""Which checks are sent a second time: a fraction of all, so that slow servers do not get twice as many."""

from __future__ import annotations

_CALLS_PER_HEDGE = 10
_MAX_SAVED = 10 * _CALLS_PER_HEDGE


class HedgeBudget:
    """Allows one extra call for every ten calls, and ten at once. Approximate among threads."""

    def __init__(self) -> None:
        self._left = _MAX_SAVED

    def earn(self) -> None:
        """Count a call."""
        self._left = min(_MAX_SAVED, self._left + 1)

    def spend(self) -> bool:
        """Whether an extra call may be made, which is counted."""
        if self._left < _CALLS_PER_HEDGE:
            return False
        self._left -= _CALLS_PER_HEDGE
        return True
