"""Envoy's admin interface, by which a server that stops asks its clients to reconnect elsewhere.

The interface may end Envoy, so it is a Unix socket in a folder that only this user enters.
Source: https://www.envoyproxy.io/docs/envoy/v1.39.0/operations/admin
"""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import tempfile
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import structlog

from authz.domain.errors import invalid
from authz.runtime.folder_lock import lock_temporary_folder, parent_of_sockets

log = structlog.get_logger()

HTTP_STATISTICS = "grpc"
"""How Envoy calls the connections of clients in its statistics."""
_PREFIX = "authz-envoy-"
_SOCKET = "admin"
_TIMEOUT_S = 1.0
_POLL_S = 0.02


def create_envoy_folder() -> Path:
    """A new folder for the sockets and files of one Envoy. Raises `InvalidArgumentError` if it cannot be."""
    try:
        parent = parent_of_sockets(f"/{_PREFIX}12345678/{_SOCKET}")
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    except OSError as error:
        raise invalid("TMPDIR", f"Envoy needs a folder in TMPDIR, or in /tmp: {error}") from None
    lock_temporary_folder(folder)
    return folder


def remove_envoy_folder(folder: Path) -> None:
    """Remove the folder, unless somebody else has."""
    shutil.rmtree(folder, ignore_errors=True)


class EnvoyAdmin:
    """The admin interface of the Envoy whose folder this is."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder / _SOCKET)

    def config(self) -> dict[str, Any]:
        """The interface in Envoy's configuration."""
        return {"address": {"pipe": {"path": self._path, "mode": 0o600}}}

    async def drain(self, limit_s: float) -> None:
        """Accept no more connections, and ask each client to reconnect elsewhere, by a GOAWAY before its next
        answer. Return once no client is connected, and after `limit_s` at the latest."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    # In this order, so that nobody who was asked comes back.
                    await self._request("POST", "/drain_listeners")
                    await self._request("POST", "/healthcheck/fail")
                    while await self._connections():  # noqa: ASYNC110  nobody tells
                        await asyncio.sleep(_POLL_S)
        except (OSError, HTTPException) as error:
            log.warning("clients not asked to reconnect elsewhere", cause=str(error), socket=self._path)

    async def _connections(self) -> int:
        name = f"http.{HTTP_STATISTICS}.downstream_cx_active"
        told = await self._request("GET", f"/stats?filter=^{re.escape(name)}$")
        return int(told.rpartition(":")[2])

    async def _request(self, method: str, path: str) -> str:
        return await asyncio.to_thread(self._ask, method, path)

    def _ask(self, method: str, path: str) -> str:
        connection = _UnixConnection(self._path)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.status != HTTPStatus.OK:
                raise HTTPException(f"{method} {path}: {answer.status} {text}")
            return text
        finally:
            connection.close()


class _UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("envoy", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
