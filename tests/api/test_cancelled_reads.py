"""What reads much of the database does so one call at a time, also when its callers leave and call again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from sqlalchemy import Engine, event

from authz.v1 import audit_pb2, privacy_pb2
from authz.v1 import authorization_pb2 as apb
from tests.api.test_api import COURSE, MATERIAL, STUDENT, question, written
from tests.api.test_past import STEP_US, time_of
from tests.service import Service, in_process

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


async def past(service: Service, timeout_s: float) -> Any:
    check = question()
    request = apb.ExplainRequest(subject=check.subject, action=check.action, resource=check.resource)
    request.as_of.CopyFrom(time_of(service.now - STEP_US))
    return await service.authorization.Explain(request, timeout=timeout_s)


async def changes(service: Service, timeout_s: float) -> Any:
    return await service.audit.ReadChanges(audit_pb2.ReadChangesRequest(), timeout=timeout_s)


async def export(service: Service, timeout_s: float) -> Any:
    request = privacy_pb2.ExportSubjectRequest(subject=STUDENT.membership.subject)
    return [each async for each in service.privacy.ExportSubject(request, timeout=timeout_s)]


@in_process
@pytest.mark.parametrize("call", [past, changes, export])
async def test_a_call_that_was_cancelled_keeps_its_turn_until_its_thread_has_ended(
    sqlite_service: Service, call: Callable[[Service, float], Any]
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
