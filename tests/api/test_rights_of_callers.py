"""The rights of a caller begin and end by time alone, and a refusal names the cause that there is then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from authz.client import Account, AccountStatus, Client, Membership, Mutation, Operation
from authz.domain.ids import PLATFORM, parse_subject
from authz.domain.instants import DAY_US
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import privacy_pb2 as prpb
from tests.api.test_policies import refused
from tests.api.test_rights import acting_for
from tests.callers import grant
from tests.databases import create_sqlite
from tests.issuer import Issuer, bearer
from tests.service import Service, info_of, reason_of, serve

ISSUER = Issuer()
SYNC = parse_subject("service:sync")


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    url = create_sqlite(tmp_path / "authz.db")
    grant(url, {"service:admin": "operator"})
    async with serve(url, now=time.time_ns() // 1000, **ISSUER.settings(tmp_path)) as each:
        yield each


async def write(service: Service, *entities: Account | Membership) -> None:
    def call() -> None:
        with Client(service.address, token=ISSUER.jwt("admin")) as client:
            client.write([Mutation(Operation.TOUCH, each) for each in entities])

    await asyncio.to_thread(call)


async def read_courses(service: Service) -> None:
    await service.directory.ReadCourses(dpb.ReadCoursesRequest(), metadata=bearer(ISSUER.jwt("sync")))


async def may_read(service: Service) -> bool:
    try:
        await read_courses(service)
    except grpc.aio.AioRpcError as error:
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
        return False
    return True


async def may_read_at(service: Service, *times: int) -> list[bool]:
    return [await may_read(service) for service.now in times]


async def test_a_role_with_dates(service: Service) -> None:
    start, end = service.now + DAY_US, service.now + 2 * DAY_US
    await write(
        service, Membership(subject=SYNC, scope=PLATFORM, role="watcher", starts_at=start, ends_at=end)
    )
    assert await may_read_at(service, start - 1, start, end - 1, end) == [False, True, True, False]


async def test_an_account_that_is_suspended_until_a_time(service: Service) -> None:
    until = service.now + DAY_US
    await write(
        service,
        Membership(subject=SYNC, scope=PLATFORM, role="watcher"),
        Account(subject=SYNC, status=AccountStatus.SUSPENDED, suspended_until=until),
    )
    assert await may_read_at(service, until - 1, until) == [False, True]


async def test_the_cause_that_a_caller_without_a_role_is_told(service: Service) -> None:
    until = service.now + DAY_US
    await write(service, Account(subject=SYNC, status=AccountStatus.SUSPENDED, suspended_until=until))
    told = []
    for service.now in (until - 1, until):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_courses(service)
        told.append("is suspended" in str(caught.value.details()))
    assert told == [True, False]


async def test_the_cause_that_a_person_without_a_permission_is_told(sqlite_service: Service) -> None:
    service, subject = sqlite_service, pb.Subject(type=pb.SUBJECT_TYPE_USER, id="stu")
    until = service.now + DAY_US
    account = pb.Account(subject=subject, status=pb.ACCOUNT_STATUS_SUSPENDED)
    account.suspended_until.FromMicroseconds(until)
    touch = dpb.Mutation(operation=dpb.OPERATION_TOUCH, account=account)
    await service.directory.Write(dpb.WriteRequest(mutations=[touch]))
    request = prpb.RestrictSubjectRequest(subject=subject, reason="request 2096-21")
    told = []
    for service.now in (until - 1, until):
        error = await refused(service.privacy.RestrictSubject(request, metadata=acting_for("stu")))
        assert "user:stu has no erase_subject on api" in str(error.details())
        assert info_of(error).metadata["scope"] == "platform"
        told.append("is suspended" in str(error.details()))
    assert told == [True, False]
