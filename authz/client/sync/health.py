# Generated from authz/client/aio/health.py; see `make client`.
"""Asks the server why a call was not answered in time."""

from __future__ import annotations

import time
from typing import Any

import grpc

from authz.client.errors import CallError
from authz.client.sync.transport import CLOSED, Channel, Method, answered
from authz.domain.errors import ErrorReason

_CHECK = "/grpc.health.v1.Health/Check"
_NAME = b"authz.v1.DirectoryService"
_REQUEST = b"\n" + bytes([len(_NAME)]) + _NAME
"""About the service whose health is that of the database. Source: `grpc/health/v1/health.proto`. The messages
are bytes here, since an application with its own copy of the file could not load another one."""
_NOT_SERVING = b"\x08\x02"
_MAX_TIMEOUT_S = 1.0
_INTERVAL_S = 1.0
"""Between two calls of a client for the health, so that an overloaded server does not get one more for every
call that it did not answer in time."""


class DatabaseHealth:
    """What the server says of its database, if a call was not answered in time."""

    def __init__(self, channel: Channel) -> None:
        self._check: Method[bytes] = channel.unary_unary(_CHECK)
        self._ask_at = 0.0
        self._is_away = False

    def explained(self, error: CallError, *, timeout_s: float) -> CallError:
        """The error; that of a missed deadline names the database, if the server says within `timeout_s`, and
        within a second, that its database does not answer."""
        if error.code is not grpc.StatusCode.DEADLINE_EXCEEDED or not self._misses_database(timeout_s):
            return error
        text = "the database of the server does not answer; see that it runs, then try again"
        return CallError(error.code, ErrorReason.STORE_UNAVAILABLE, text)

    def _misses_database(self, timeout_s: float) -> bool:
        now = time.monotonic()
        if now >= self._ask_at:
            self._ask_at = now + _INTERVAL_S
            self._is_away = self._asked(min(timeout_s, _MAX_TIMEOUT_S)) == _NOT_SERVING
        return self._is_away

    def _asked(self, timeout_s: float) -> Any:
        try:
            return answered(self._check(_REQUEST, timeout=timeout_s))
        except (CLOSED, grpc.RpcError):
            return None
