"""Limits how many calls are in flight, so that no client and no kind of call takes the capacity of others."""

from __future__ import annotations

from collections.abc import Sequence

from authz.domain.errors import OverloadedError

_RETRY_AFTER_S = 0.1


class ConcurrencyLimit:
    """The limit on calls of one kind in flight.

    A client, which is a connection or a caller, may have at most half of them. The last quarter is for
    clients that have none, so that a new client is served while greedy ones are shed.
    """

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self._limit_per_client = -(-limit // 2)
        self._open_to_all = limit - limit // 4
        self.in_flight = 0
        """How many count against the limit."""
        self._by_client: dict[str, int] = {}

    def acquire(self, clients: Sequence[str]) -> None:
        """Count a call of these clients. Raises `OverloadedError` if that would exceed the limit."""
        if self.in_flight >= self._limit:
            raise self._shed(f"more than {self._limit} {self._what}", self._limit)
        for client in clients:
            count = self._by_client.get(client, 0)
            if count >= self._limit_per_client:
                raise self._shed(f"more than {count} {self._what} of one client", count)
            if count and self.in_flight >= self._open_to_all:
                raise self._shed(f"more than {self.in_flight} {self._what}", self.in_flight)
        self.in_flight += 1
        for client in clients:
            self._by_client[client] = self._by_client.get(client, 0) + 1

    def release(self, clients: Sequence[str]) -> None:
        """Count a call of these clients no longer."""
        self.release_to_others()
        self.release_clients(clients)

    def release_to_others(self) -> None:
        """Let another client make a call. For its own clients the call counts until `release_clients`."""
        self.in_flight -= 1

    def release_clients(self, clients: Sequence[str]) -> None:
        """Count a call no longer for its clients."""
        for client in clients:
            count = self._by_client.pop(client) - 1
            if count:
                self._by_client[client] = count

    def _shed(self, problem: str, limit: int) -> OverloadedError:
        return OverloadedError(f"{problem}; try again", retry_after_s=_RETRY_AFTER_S, limit=str(limit))
