"""A real server on a free port over a real database, and a real channel to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from authz.runtime.server import Server
from authz.runtime.settings import load_settings
from authz.v1 import authorization_pb2_grpc, directory_pb2_grpc, policy_pb2_grpc, watch_pb2_grpc
from authz.v1 import common_pb2 as pb
from tests.serving import replica_folder
from tests.tokens import moved

START = 1_700_000_000_000_000


class Service:
    """Stubs of a running server, and the clock that it tells time by."""

    def __init__(self, channel: grpc.aio.Channel, address: str, url: str = "", now: int = START) -> None:
        self.channel = channel
        self.address = address
        self._url = url
        self.authorization: Any = authorization_pb2_grpc.AuthorizationServiceStub(channel)
        self.directory: Any = directory_pb2_grpc.DirectoryServiceStub(channel)
        self.policy: Any = policy_pb2_grpc.PolicyServiceStub(channel)
        self.watch: Any = watch_pb2_grpc.WatchServiceStub(channel)
        self.now = now

    def moved(self, token: pb.ConsistencyToken, by: int) -> pb.ConsistencyToken:
        """The token of another revision of its database."""
        return pb.ConsistencyToken(token=moved(self._url, token.token, by))


async def serve(url: str, *, now: int = START, **settings: str) -> AsyncIterator[Service]:
    """Serve `url` with more settings, if any, and a clock that begins at `now`."""
    given = {"address": "127.0.0.1:0", "database_url": url, "stop_grace_s": "0", **settings}
    with replica_folder(url) as folder:
        async for each in _serve({"replica_dir": folder, **given}, now):
            yield each


async def _serve(given: dict[str, str], now: int) -> AsyncIterator[Service]:
    running: list[Service] = []
    server = Server(load_settings(given, environ={}), clock=lambda: running[0].now if running else now)
    async with server, grpc.aio.insecure_channel(server.address) as channel:
        running.append(Service(channel, server.address, given["database_url"], now))
        yield running[0]


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
