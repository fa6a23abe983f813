"""Calls that read much of the database: one at a time, and only for a caller that may still make them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import Engine, event

from authz.v1 import audit_pb2, privacy_pb2
from authz.v1 import authorization_pb2 as apb
from tests.api.test_api import COURSE, MATERIAL, STUDENT, question, written
from tests.api.test_past import STEP_US, time_of
from tests.callers import grant, revoke
from tests.issuer import Issuer, bearer
from tests.service import Service, in_process, reason_of, serve
from tests.waiting import until

CANCELLED = 6
"""More than the threads that read."""


class Reads:
    """The reads of the change log that calls have begun, held until they are `released`."""

    def __init__(self) -> None:
        self.begun = 0
        self.released = threading.Event()

    def hold(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        """As SQLAlchemy calls it before each statement."""
        if threading.current_thread().name.startswith("read") and "changes" in statement:
            self.begun += 1
            self.released.wait()


@contextmanager
def held() -> Iterator[Reads]:
    reads = Reads()
    event.listen(Engine, "before_cursor_execute", reads.hold)
    try:
        yield reads
    finally:
        reads.released.set()
        event.remove(Engine, "before_cursor_execute", reads.hold)


async def past(service: Service, timeout_s: float, **options: Any) -> Any:
    check = question()
    request = apb.ExplainRequest(subject=check.subject, action=check.action, resource=check.resource)
    request.as_of.CopyFrom(time_of(service.now - STEP_US))
    return await service.authorization.Explain(request, timeout=timeout_s, **options)


async def changes(service: Service, timeout_s: float, **options: Any) -> Any:
    return await service.audit.ReadChanges(audit_pb2.ReadChangesRequest(), timeout=timeout_s, **options)


async def export(service: Service, timeout_s: float) -> Any:
    request = privacy_pb2.ExportSubjectRequest(subject=STUDENT.membership.subject)
    return [each async for each in service.privacy.ExportSubject(request, timeout=timeout_s)]


@in_process
@pytest.mark.parametrize("call", [past, changes, export])
async def test_a_call_that_was_cancelled_keeps_its_turn_until_its_thread_has_ended(
    sqlite_service: Service, call: Callable[..., Any]
) -> None:
    await written(sqlite_service, COURSE, STUDENT, MATERIAL)
    sqlite_service.now += 2 * STEP_US
    with held() as reads:
        for _ in range(CANCELLED):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(sqlite_service, 0.2)
            assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert reads.begun == 1
        reads.released.set()
        assert await call(sqlite_service, 30)


@in_process
@pytest.mark.parametrize("call", [past, changes])
async def test_a_call_that_waits_for_the_database_ends_when_its_caller_loses_the_role(
    sqlite_url: str, tmp_path: Path, call: Callable[..., Any]
) -> None:
    role = "compliance_auditor"
    grant(sqlite_url, {"service:auditor": role})
    issuer = Issuer()
    async with serve(sqlite_url, now=time.time_ns() // 1000, **issuer.settings(tmp_path)) as service:
        service.now += 2 * STEP_US
        with held() as reads:
            waiting = asyncio.ensure_future(call(service, 60, metadata=bearer(issuer.jwt("auditor"))))
            await asyncio.to_thread(until, lambda: reads.begun)
            revoke(sqlite_url, "service:auditor", role)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await waiting
            assert reason_of(refused.value) == "PERMISSION_MISSING"
