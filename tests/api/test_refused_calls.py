"""A call that is refused leaves nothing behind in the server."""

from __future__ import annotations

import gc
from typing import Any

import grpc
import pytest

from authz.domain.errors import AuthzError
from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import watch_pb2 as wpb
from tests.service import Service, in_process

CALLS = 50


def left_behind() -> int:
    """How many errors no garbage collection frees. Their tracebacks hold what the calls have read."""
    gc.collect()
    return sum(isinstance(each, AuthzError) for each in gc.get_objects())


@in_process
async def test_a_refused_call_is_freed_with_all_that_it_has_read(sqlite_service: Service) -> None:
    unknown: Any = sqlite_service.channel.unary_unary("/other.v1.Service/Call")
    malformed = pb.ConsistencyToken(token="x")

    async def refuse_one_of_each_form() -> None:
        with pytest.raises(grpc.aio.AioRpcError):
            await sqlite_service.authorization.Check(apb.CheckRequest())
        with pytest.raises(grpc.aio.AioRpcError):
            await sqlite_service.watch.Watch(wpb.WatchRequest(after=malformed)).read()
        with pytest.raises(grpc.aio.AioRpcError):
            await unknown(b"")

    before = left_behind()
    for _ in range(CALLS):
        await refuse_one_of_each_form()
    assert left_behind() < before + CALLS
