"""Import: counts, positions and references across the messages of one stream."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from authz.client.aio.transport import answer_to
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import directory_pb2_grpc
from tests.api.test_api import COURSE, MATERIAL, MAYA, STUDENT, delete, question, touch, written
from tests.service import Service, info_of, reason_of, serve
from tests.serving import both_transports


def message(*mutations: dpb.Mutation) -> dpb.ImportRequest:
    return dpb.ImportRequest(mutations=mutations)


async def sent(service: Service, *messages: dpb.ImportRequest) -> dpb.ImportResponse:
    response: dpb.ImportResponse = await answer_to(service.directory.Import, messages, None)
    return response


async def courses(service: Service) -> list[str]:
    response = await service.directory.ReadCourses(dpb.ReadCoursesRequest())
    return [course.id for course in response.courses]


async def test_an_empty_stream_writes_nothing_and_has_a_token(sqlite_service: Service) -> None:
    response = await sent(sqlite_service)
    assert (response.written, response.unchanged, response.failed) == (0, 0, 0)
    assert response.written_at.token


async def test_later_messages_refer_to_earlier_ones_but_not_the_other_way(service: Service) -> None:
    response = await sent(service, message(STUDENT), message(COURSE), message(MATERIAL, STUDENT))
    assert (response.written, response.failed) == (3, 1)
    assert [(each.position, each.reason) for each in response.errors] == [(0, "REFERENCE_NOT_FOUND")]
    assert "course:algebra" in response.errors[0].message
    fresh = pb.Consistency(at_least_as_fresh=response.written_at)
    assert (await service.authorization.Check(question(consistency=fresh))).allowed


async def test_the_same_import_again_changes_nothing(service: Service) -> None:
    account = touch(account=pb.Account(subject=STUDENT.membership.subject))
    messages = (message(COURSE, STUDENT), message(MATERIAL, account))
    first = await sent(service, *messages)
    again = await sent(service, *messages)
    assert (again.written, again.unchanged, again.failed) == (0, 4, 0)
    assert again.written_at == first.written_at


@both_transports
async def test_positions_count_over_faults_of_every_kind(sqlite_service: Service) -> None:
    unreadable = touch(course=pb.Course(id="a b"))
    there = dpb.Mutation(operation=dpb.OPERATION_CREATE, course=pb.Course(id="algebra"))
    response = await sent(
        sqlite_service, message(unreadable, COURSE, there), message(), message(COURSE, unreadable, there)
    )
    assert (response.written, response.unchanged, response.failed) == (1, 1, 4)
    assert [(each.position, each.reason) for each in response.errors] == [
        (0, "MALFORMED_ID"),
        (2, "ENTITY_EXISTS"),
        (4, "MALFORMED_ID"),
        (5, "ENTITY_EXISTS"),
    ]


async def test_only_the_first_thousand_faults_are_told(sqlite_service: Service) -> None:
    exact = await sent(sqlite_service, message(*[dpb.Mutation()] * 1000))
    assert (exact.failed, len(exact.errors), exact.errors_truncated) == (1000, 1000, False)
    more = await sent(sqlite_service, message(*[dpb.Mutation()] * 1000), message(dpb.Mutation(), COURSE))
    assert (more.written, more.failed, len(more.errors), more.errors_truncated) == (1, 1001, 1000, True)
    assert more.errors[-1].position == 999


async def test_a_stream_that_breaks_keeps_the_messages_before(sqlite_service: Service) -> None:
    too_many = message(*[COURSE] * 1001)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await sent(sqlite_service, message(COURSE), too_many)
    assert reason_of(caught.value) == "TOO_MANY_ITEMS"
    assert await courses(sqlite_service) == ["algebra"]


async def test_a_client_that_goes_leaves_whole_messages(sqlite_service: Service) -> None:
    async def stream() -> AsyncIterator[dpb.ImportRequest]:
        for number in range(100):
            yield message(*(touch(course=pb.Course(id=f"{name}{number:03}")) for name in "ab"))
        raise RuntimeError("the client is gone")

    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await sqlite_service.directory.Import(stream())
    stored = await courses(sqlite_service)
    assert len(stored) % 2 == 0
    assert [name[1:] for name in stored if name[0] == "a"] == [name[1:] for name in stored if name[0] == "b"]


async def silent_after(*messages: dpb.ImportRequest) -> AsyncIterator[dpb.ImportRequest]:
    for message in messages:
        yield message
    await asyncio.Event().wait()


async def test_an_import_that_is_silent_is_ended_and_told_what_it_has_written(sqlite_url: str) -> None:
    async with serve(sqlite_url, import_idle_timeout_s="1") as service:
        sent = [dpb.ImportRequest(mutations=[COURSE, touch(course=pb.Course(id="b"))])]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.directory.Import(silent_after(*sent))
        assert caught.value.code() is grpc.StatusCode.ABORTED
        assert reason_of(caught.value) == "IMPORT_ENDED"
        assert "sent nothing for 1 s" in str(caught.value.details())
        assert "written 2" in str(caught.value.details())
        assert info_of(caught.value).metadata["written"] == "2"
        assert len((await service.directory.ReadCourses(dpb.ReadCoursesRequest())).courses) == 2


async def test_silent_imports_refuse_only_imports(sqlite_url: str) -> None:
    async with serve(sqlite_url, max_imports="4") as service:
        silent = [asyncio.ensure_future(service.directory.Import(silent_after())) for _ in range(40)]
        shed, held = await asyncio.wait(silent, return_when=asyncio.FIRST_COMPLETED)
        await written(service, COURSE, STUDENT, MATERIAL)
        assert (await service.authorization.Check(question())).allowed
        while len(shed) < 38:
            more, held = await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
            shed |= more
        assert {reason_of(each.exception()) for each in shed} == {"OVERLOADED"}
        async with grpc.aio.insecure_channel(
            service.address, [("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            other: Any = directory_pb2_grpc.DirectoryServiceStub(channel)
            assert (await other.Import(iter([dpb.ImportRequest(mutations=[COURSE])]))).unchanged == 1
        for each in held:
            each.cancel()


async def test_an_import_that_goes_on_for_too_long_is_ended(sqlite_url: str) -> None:
    async with serve(sqlite_url, max_import_s="0.3") as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answer_to(service.directory.Import, itertools.repeat(dpb.ImportRequest()), None)
        assert reason_of(caught.value) == "IMPORT_ENDED"
        assert "longer than 0.3 s" in str(caught.value.details())


COURSES = [touch(course=pb.Course(id=f"c{number}")) for number in range(249)]
END = delete(membership=STUDENT.membership)
SESSION = pb.Scope(session_id="s")
GUEST = pb.Membership(subject=MAYA, scope=SESSION, role="guest")


@pytest.mark.parametrize(
    ("membership", "mutations"),
    [
        (STUDENT, (END, dpb.Mutation(), STUDENT)),
        (STUDENT, (*COURSES, END, STUDENT)),
        (STUDENT, (END, *COURSES, *COURSES, STUDENT)),
        (touch(membership=GUEST), (*COURSES, delete(membership=GUEST), STUDENT)),
    ],
    ids=["malformed between", "at a cut", "around a batch", "from a session to its course"],
)
async def test_a_membership_that_one_message_replaces_keeps_its_shares(
    sqlite_service: Service, membership: dpb.Mutation, mutations: tuple[dpb.Mutation, ...]
) -> None:
    session = touch(session=pb.Session(id="s", course_id="algebra"))
    notes = touch(resource=pb.Resource(type="material", id="m-2", scope=SESSION))
    share = pb.Share(resource_type="material", resource_id="m-2", subject=MAYA, level=pb.SHARE_LEVEL_VIEWER)
    await written(sqlite_service, COURSE, session, notes, membership, touch(share=share))
    await sent(sqlite_service, message(*mutations))
    left = await sqlite_service.directory.ReadShares(dpb.ReadSharesRequest())
    assert [each.resource_id for each in left.shares] == ["m-2"]
