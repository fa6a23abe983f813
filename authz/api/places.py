"""Bounds how many calls are in flight, so that no client and no kind of call takes the room of others."""

from __future__ import annotations

from collections.abc import Sequence

from authz.domain.errors import OverloadedError

_RETRY_AFTER_S = 0.1


class Places:
    """The places for one kind of call.

    A holder, which is a connection or a caller, has at most half of them. The last quarter is for holders
    that have none, so that a new client is served while greedy ones are shed.
    """

    def __init__(self, most: int, what: str) -> None:
        self._most = most
        self._what = what
        self._most_of_one = -(-most // 2)
        self._open_to_all = most - most // 4
        self.taken = 0
        """How many are taken."""
        self._held: dict[str, int] = {}

    def take(self, holders: Sequence[str]) -> None:
        """Take a place for a call of these holders. Raises `OverloadedError` if there is none for them."""
        if self.taken >= self._most:
            raise self._shed(f"more than {self._most} {self._what}", self._most)
        for holder in holders:
            held = self._held.get(holder, 0)
            if held >= self._most_of_one:
                raise self._shed(f"more than {held} {self._what} of one client", held)
            if held and self.taken >= self._open_to_all:
                raise self._shed(f"more than {self.taken} {self._what}", self.taken)
        self.taken += 1
        for holder in holders:
            self._held[holder] = self._held.get(holder, 0) + 1

    def free(self) -> None:
        """Free the place for other clients. To its holders it still counts until `release`."""
        self.taken -= 1

    def release(self, holders: Sequence[str]) -> None:
        """Forget a call of these holders."""
        for holder in holders:
            held = self._held.pop(holder) - 1
            if held:
                self._held[holder] = held

    def release_and_free(self, holders: Sequence[str]) -> None:
        """Both at once."""
        self.free()
        self.release(holders)

    def _shed(self, problem: str, limit: int) -> OverloadedError:
        return OverloadedError(f"{problem}; try again", retry_after_s=_RETRY_AFTER_S, limit=str(limit))
