"""The refusal of a request."""

from __future__ import annotations


class RefusedError(Exception):
    """The application must not serve the request. `str(error)` is safe to show to the sender.

    `status` is an HTTP status: 403 not allowed, 404 no such id can exist, 503 no decision is possible now.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
