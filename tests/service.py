"""A real server on a free port over a real database, and a real channel to it."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from structlog.testing import capture_logs

from authz.runtime.server import Server
from authz.runtime.settings import load_settings
from authz.v1 import (
    audit_pb2_grpc,
    authorization_pb2_grpc,
    directory_pb2_grpc,
    policy_pb2_grpc,
    privacy_pb2_grpc,
    watch_pb2_grpc,
)
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from tests import forkserver
from tests.envoy_app import VARIABLE, SharedClock
from tests.forkserver import TRANSPORT, Process, without_settings
from tests.serving import replica_folder
from tests.tokens import moved

in_process = pytest.mark.skipif(TRANSPORT == "envoy", reason="reaches into the process of the server")
_marks = itertools.count(1)
START = 1_700_000_000_000_000


class Service:
    """Stubs of a running server, and the clock that it tells time by."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        address: str,
        url: str = "",
        *,
        now: int = START,
        clock: SharedClock | None = None,
        log: Path | None = None,
    ) -> None:
        self._now = now
        self._clock = clock
        self._log = log
        self.channel = channel
        self.address = address
        self._url = url
        self.authorization: Any = authorization_pb2_grpc.AuthorizationServiceStub(channel)
        self.directory: Any = directory_pb2_grpc.DirectoryServiceStub(channel)
        self.policy: Any = policy_pb2_grpc.PolicyServiceStub(channel)
        self.privacy: Any = privacy_pb2_grpc.PrivacyServiceStub(channel)
        self.audit: Any = audit_pb2_grpc.AuditServiceStub(channel)
        self.watch: Any = watch_pb2_grpc.WatchServiceStub(channel)

    @property
    def now(self) -> int:
        """The server's time."""
        return self._now

    @now.setter
    def now(self, now: int) -> None:
        self._now = now
        if self._clock is not None:
            self._clock.set(now)

    @asynccontextmanager
    async def logged(self) -> AsyncIterator[list[Any]]:
        """The lines that the server logs in this block, in a list that is complete after it."""
        # An earlier call whose client went away may log late, but not later than this one.
        await self._mark()
        if self._log is None:
            with capture_logs() as captured:
                yield captured
            return
        lines: list[Any] = []
        begun = self._log.stat().st_size
        try:
            yield lines
        finally:
            mark = await self._mark()
            for line in map(json.loads, self._log.read_bytes()[begun:].splitlines()):
                if line.get("request_id") != mark:
                    lines.append({**line, "log_level": line.pop("level")})

    async def _mark(self) -> str:
        """Make a call with a request id of its own, and return the id once the call is in the log."""
        mark = f"mark-{next(_marks)}"
        with suppress(grpc.aio.AioRpcError):
            await self.directory.ReadCourses(dpb.ReadCoursesRequest(), metadata=(("x-request-id", mark),))
        while self._log is not None and f'"{mark}"'.encode() not in self._log.read_bytes():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return mark

    def moved(self, token: pb.ConsistencyToken, by: int) -> pb.ConsistencyToken:
        """The token of another revision of its database."""
        return pb.ConsistencyToken(token=moved(self._url, token.token, by))


@asynccontextmanager
async def serve(
    url: str, *, now: int = START, transport: str = "grpc", **settings: str
) -> AsyncIterator[Service]:
    """Serve `url` with more settings, if any, and a clock that begins at `now`, unless `TRANSPORT` says
    otherwise over `transport`."""
    given = {"address": "127.0.0.1:0", "database_url": url, "stop_grace_s": "0", **settings}
    with replica_folder(url) as folder:
        async with _serve({"replica_dir": folder, **given}, now, forkserver.TRANSPORT or transport) as each:
            yield each


@asynccontextmanager
async def _serve(given: dict[str, str], now: int, transport: str) -> AsyncIterator[Service]:
    if transport == "envoy":
        async with _serve_in_envoy(given, now) as each:
            yield each
        return
    running: list[Service] = []
    server = Server(load_settings(given, environ={}), clock=lambda: running[0].now if running else now)
    async with server, grpc.aio.insecure_channel(server.address) as channel:
        running.append(Service(channel, server.address, given["database_url"], now=now))
        yield running[0]


@asynccontextmanager
async def _serve_in_envoy(given: dict[str, str], now: int) -> AsyncIterator[Service]:
    with tempfile.TemporaryDirectory(prefix="authz-envoy-") as name:
        folder = Path(name)
        clock = SharedClock.create(folder / "clock", now)
        variables = {f"AUTHZ_{key.upper()}": value for key, value in given.items()}
        environ = without_settings()
        environ |= {VARIABLE: str(folder / "clock"), "AUTHZ_LOG_LEVEL": "debug", **variables}
        with (folder / "log").open("wb") as log:
            process = Process(environ=environ, stderr=log.fileno(), module="tests.envoy_app")
        try:
            while (found := re.search(r'"address":"([^"]+)"', (folder / "log").read_text())) is None:
                assert process.poll() is None, (folder / "log").read_text()
                await asyncio.sleep(0.01)
            async with grpc.aio.insecure_channel(found[1]) as channel:
                yield Service(
                    channel, found[1], given["database_url"], now=now, clock=clock, log=folder / "log"
                )
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait)
            print((folder / "log").read_text(), file=sys.stderr)


def info_of(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """The `ErrorInfo` of a failed call; an empty one when it has none."""
    info = error_details_pb2.ErrorInfo()
    _unpack(error, info)
    return info


def violations_of(error: grpc.aio.AioRpcError) -> list[error_details_pb2.BadRequest.FieldViolation]:
    """The field violations of a failed call."""
    bad = error_details_pb2.BadRequest()
    _unpack(error, bad)
    return list(bad.field_violations)


def retry_of(error: grpc.aio.AioRpcError) -> error_details_pb2.RetryInfo:
    """The `RetryInfo` of a failed call; an empty one when it has none."""
    retry = error_details_pb2.RetryInfo()
    _unpack(error, retry)
    return retry


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason in the `ErrorInfo` of a failed call."""
    return str(info_of(error).reason)


def _unpack(error: grpc.aio.AioRpcError, detail: Message) -> None:
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            for packed in status_pb2.Status.FromString(value).details:
                if packed.Is(detail.DESCRIPTOR):
                    packed.Unpack(detail)
