"""What a caller may get wrong: each case is refused with its status, its reason and the input's name."""

from __future__ import annotations

import re
from typing import Any

import grpc
import pytest

from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from tests.api.bad_requests import CASES, ask, write
from tests.api.test_api import ALGEBRA, COURSE, MATERIAL, MAYA, touch, written
from tests.service import Service, info_of, reason_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def service(shared_sqlite_service: Service) -> Service:
    """One for all cases: what is refused changes nothing, which the last test confirms."""
    return shared_sqlite_service


async def call(service: Service, method: str, request: Any) -> Any:
    if method == "Import":
        return await service.directory.Import(iter([request]))
    stub = service.authorization if hasattr(service.authorization, method) else service.directory
    return await getattr(stub, method)(request)


async def refusal(service: Service, method: str, request: bytes) -> Any:
    """How a call ends whose request is these bytes."""
    channel: Any = service.channel
    path = f"/authz.v1.{method}"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if method.endswith("Import"):
            await channel.stream_unary(path)(iter([request]))
        elif method.endswith("Watch"):
            await anext(aiter(channel.unary_stream(path)(request)))
        else:
            await channel.unary_unary(path)(request)
    return caught.value


@pytest.mark.parametrize("sentence", list(CASES))
async def test_it_is_refused_by_name(service: Service, sentence: str) -> None:
    method, request, reason, named = CASES[sentence]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(service, method, request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(caught.value) == reason
    assert named in str(caught.value.details())
    info = info_of(caught.value)
    assert info.domain == "authz.qalamchat"
    assert info.metadata
    assert all(len(value) <= 256 for value in info.metadata.values())


async def test_a_bad_request_id_in_the_header_is_not_taken_and_not_held_against_the_caller(
    service: Service,
) -> None:
    header = (("x-request-id", "a b"),)
    async with service.logged() as lines:
        await service.authorization.Check(ask(), metadata=header)
        await service.directory.ReadCourses(dpb.ReadCoursesRequest(), metadata=header)
    told = [line["request_id"] for line in lines if line["event"] == "call"]
    assert len(set(told)) == 2
    assert not [request_id for request_id in told if " " in request_id]


async def test_long_inputs_do_not_make_long_answers(service: Service) -> None:
    bad = [touch(resource=pb.Resource(type="b" * 3000, id="a", scope=ALGEBRA))] * 1000
    imported = await service.directory.Import(iter([dpb.ImportRequest(mutations=bad)]))
    assert imported.failed == 1000
    assert imported.ByteSize() < 300_000
    batch = apb.BatchCheckRequest(items=[ask("b" * 3000)] * 1000)
    assert (await service.authorization.BatchCheck(batch)).ByteSize() < 500_000


HUGE = b"\x10\x01" * 2_000_000
"""Two million states, or whatever the second field of a request is."""


@pytest.mark.parametrize(
    "method",
    [
        "AuthorizationService/Check",
        "AuthorizationService/BatchCheck",
        "DirectoryService/Write",
        "DirectoryService/Import",
        "DirectoryService/ReadCourses",
        "WatchService/Watch",
    ],
)
async def test_millions_of_items_are_refused_by_number(service: Service, method: str) -> None:
    failure = await refusal(service, method, HUGE)
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert info_of(failure).metadata["field"] in ("request", "states", "preconditions")
    assert re.search(r"at most \d+|more than \d+|cannot be read", str(failure.details()))


async def test_what_is_named_twice_is_read_once(service: Service) -> None:
    await written(service, COURSE)
    request = dpb.ReadCoursesRequest(ids=["algebra"] * 1000, states=[pb.COURSE_STATE_ACTIVE] * 100)
    assert len((await service.directory.ReadCourses(request)).courses) == 1
    await service.directory.Write(write(dpb.Mutation(operation=dpb.OPERATION_DELETE, course=COURSE.course)))


async def test_after_all_that_nothing_is_written(service: Service) -> None:
    assert not (await service.directory.ReadCourses(dpb.ReadCoursesRequest())).courses
    await written(service, COURSE, MATERIAL)
    assert len((await service.directory.ReadCourses(dpb.ReadCoursesRequest())).courses) == 1


NOISE = b"\xff\xff\xff"


@pytest.mark.parametrize(
    "method",
    [
        "AuthorizationService/Check",
        "AuthorizationService/BatchCheck",
        "DirectoryService/Write",
        "DirectoryService/Import",
        "WatchService/Watch",
    ],
)
async def test_what_is_no_message_is_refused_like_any_bad_input(service: Service, method: str) -> None:
    failure = await refusal(service, method, NOISE)
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert info_of(failure).metadata["field"] == "request"
    assert method.rpartition("/")[2] in str(failure.details())


async def test_of_many_mutations_the_one_at_fault_is_told_by_its_place(service: Service) -> None:
    membership = pb.Membership(subject=MAYA, scope=ALGEBRA, role="studnt")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await written(service, MATERIAL, COURSE, touch(membership=membership))
    assert str(caught.value.details()).startswith("mutations[2]: unknown role `studnt`")
