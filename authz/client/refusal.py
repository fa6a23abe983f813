"""Why a request is not served."""

from __future__ import annotations


class RefusedError(Exception):
    """The request is not served. `str(error)` may be shown to its sender.

    `status` is that of HTTP: 403 not allowed, 404 no such id can exist, 503 it cannot be decided now.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
