"""Write: what each operation does, what a precondition holds back, and what goes with what is deleted."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf import duration_pb2

from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from tests.api.test_api import ALGEBRA, COURSE, MATERIAL, MAYA, STUDENT, delete, question, touch, written
from tests.service import Service, info_of, reason_of, retry_of
from tests.tokens import state_of

SESSION = touch(session=pb.Session(id="live", course_id="algebra"))
GUEST = touch(membership=pb.Membership(subject=MAYA, scope=pb.Scope(session_id="live"), role="guest"))
NOTE = touch(resource=pb.Resource(type="session_note", id="n-1", scope=pb.Scope(session_id="live")))
SHARE = touch(
    share=pb.Share(resource_type="material", resource_id="m-1", subject=MAYA, level=pb.SHARE_LEVEL_VIEWER)
)
EVERYTHING = (SHARE, NOTE, GUEST, SESSION, MATERIAL, STUDENT, COURSE)


async def counts(service: Service) -> tuple[int, ...]:
    directory = service.directory
    return (
        len((await directory.ReadCourses(dpb.ReadCoursesRequest())).courses),
        len((await directory.ReadSessions(dpb.ReadSessionsRequest())).sessions),
        len((await directory.ReadMemberships(dpb.ReadMembershipsRequest())).memberships),
        len((await directory.ReadResources(dpb.ReadResourcesRequest())).resources),
        len((await directory.ReadShares(dpb.ReadSharesRequest())).shares),
    )


async def test_deleting_a_course_takes_all_that_is_in_it(sqlite_service: Service) -> None:
    await written(sqlite_service, *EVERYTHING)
    assert await counts(sqlite_service) == (1, 1, 2, 2, 1)
    await written(sqlite_service, delete(course=pb.Course(id="algebra")))
    assert await counts(sqlite_service) == (0, 0, 0, 0, 0)
    assert (await sqlite_service.authorization.Check(question())).reason == apb.REASON_RESOURCE_UNKNOWN


async def test_a_large_course_is_gone_at_once_and_made_anew_once_it_is_removed(service: Service) -> None:
    await written(service, *EVERYTHING)
    users = (pb.Subject(type=pb.SUBJECT_TYPE_USER, id=f"u{n}") for n in range(1000))
    members = (pb.Membership(subject=each, scope=ALGEBRA, role="student") for each in users)
    await written(service, *(touch(membership=each) for each in members))
    await written(service, delete(course=pb.Course(id="algebra")))
    assert await counts(service) == (0, 0, 0, 0, 0)
    assert (await service.authorization.Check(question())).reason == apb.REASON_RESOURCE_UNKNOWN
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await written(service, COURSE)
    assert (caught.value.code(), reason_of(caught.value)) == (grpc.StatusCode.ABORTED, "BEING_REMOVED")
    assert info_of(caught.value).metadata == {"key": "course:algebra"}
    for _ in range(100):
        await asyncio.sleep(retry_of(caught.value).retry_delay.ToMilliseconds() / 1000)
        try:
            await written(service, COURSE, MATERIAL)
        except grpc.aio.AioRpcError as error:
            assert reason_of(error) == "BEING_REMOVED"
        else:
            break
    assert await counts(service) == (1, 0, 0, 1, 0)
    assert (await service.authorization.Check(question())).reason == apb.REASON_NOT_A_MEMBER


async def test_deleting_a_session_leaves_its_course(sqlite_service: Service) -> None:
    await written(sqlite_service, *EVERYTHING)
    await written(sqlite_service, delete(session=pb.Session(id="live")))
    assert await counts(sqlite_service) == (1, 0, 1, 1, 1)


async def test_deleting_a_resource_takes_its_shares(sqlite_service: Service) -> None:
    await written(sqlite_service, *EVERYTHING)
    await written(sqlite_service, delete(resource=pb.Resource(type="material", id="m-1")))
    assert await counts(sqlite_service) == (1, 1, 2, 1, 0)


async def test_deleting_what_is_not_there_changes_nothing(sqlite_service: Service) -> None:
    before = await written(sqlite_service, *EVERYTHING)
    assert await written(sqlite_service, delete(course=pb.Course(id="none"))) == before


async def test_create_refuses_what_is_there_and_writes_nothing(sqlite_service: Service) -> None:
    await written(sqlite_service, COURSE)
    again = dpb.Mutation(operation=dpb.OPERATION_CREATE, course=pb.Course(id="algebra"))
    other = dpb.Mutation(operation=dpb.OPERATION_CREATE, course=pb.Course(id="poetry"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await written(sqlite_service, other, again)
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert reason_of(caught.value) == "ENTITY_EXISTS"
    assert info_of(caught.value).metadata["key"] == "course:algebra"
    assert await counts(sqlite_service) == (1, 0, 0, 0, 0)


async def test_touching_what_is_already_so_keeps_token_and_version(sqlite_service: Service) -> None:
    first = await written(sqlite_service, COURSE)
    assert await written(sqlite_service, COURSE) == first
    changed = await written(sqlite_service, touch(course=pb.Course(id="algebra", ai_enabled=True)))
    revision = state_of(first.token).revision + 1
    assert state_of(changed.token).revision == revision
    (course,) = (await sqlite_service.directory.ReadCourses(dpb.ReadCoursesRequest())).courses
    assert (course.revision, course.ai_enabled, course.state) == (revision, True, pb.COURSE_STATE_DRAFT)


async def test_a_resource_never_moves(sqlite_service: Service) -> None:
    poetry = touch(course=pb.Course(id="poetry"))
    await written(sqlite_service, COURSE, MATERIAL, poetry)
    moved = touch(resource=pb.Resource(type="material", id="m-1", scope=pb.Scope(course_id="poetry")))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await written(sqlite_service, moved)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(caught.value) == "SCOPE_IMMUTABLE"
    assert "material:m-1" in str(caught.value.details())


EXISTS, NOT_EXISTS = dpb.EXPECTATION_EXISTS, dpb.EXPECTATION_NOT_EXISTS


@pytest.mark.parametrize("kind", ["course", "membership", "resource"])
async def test_preconditions_speak_of_the_state_before_the_write(sqlite_service: Service, kind: str) -> None:
    mutations = {"course": COURSE, "membership": STUDENT, "resource": MATERIAL}
    entity = {kind: getattr(mutations[kind], kind)}
    absent = dpb.Precondition(expectation=NOT_EXISTS, **entity)
    present = dpb.Precondition(expectation=EXISTS, **entity)
    request = dpb.WriteRequest(mutations=mutations.values(), preconditions=[present])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await sqlite_service.directory.Write(request)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(caught.value) == "PRECONDITION_FAILED"
    assert "does not exist" in str(caught.value.details())
    assert await counts(sqlite_service) == (0, 0, 0, 0, 0)
    await sqlite_service.directory.Write(
        dpb.WriteRequest(mutations=mutations.values(), preconditions=[absent])
    )
    assert await counts(sqlite_service) == (1, 0, 1, 1, 0)
    await sqlite_service.directory.Write(
        dpb.WriteRequest(mutations=[GUEST, SESSION], preconditions=[present])
    )
    with pytest.raises(grpc.aio.AioRpcError):
        await sqlite_service.directory.Write(dpb.WriteRequest(mutations=[NOTE], preconditions=[absent]))
    assert await counts(sqlite_service) == (1, 1, 2, 1, 0)


async def test_of_writers_that_saw_the_same_version_one_wins(service: Service) -> None:
    await written(service, COURSE)
    guard = dpb.Precondition(
        expectation=dpb.EXPECTATION_AT_REVISION, course=pb.Course(id="algebra", revision=2)
    )
    requests = [
        dpb.WriteRequest(
            mutations=[
                touch(course=pb.Course(id="algebra", edit_window=duration_pb2.Duration(seconds=number)))
            ],
            preconditions=[guard],
        )
        for number in range(1, 9)
    ]
    outcomes = await asyncio.gather(
        *(service.directory.Write(request) for request in requests), return_exceptions=True
    )
    lost = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
    assert len(lost) == len(requests) - 1
    assert {reason_of(each) for each in lost} == {"PRECONDITION_FAILED"}


async def test_a_write_answers_the_version_of_what_it_changed_also_when_it_is_repeated(
    service: Service,
) -> None:
    requests = [
        dpb.WriteRequest(mutations=[touch(course=pb.Course(id=f"c{number}"))], idempotency_key=f"k{number}")
        for number in range(10)
    ]
    answers = await asyncio.gather(*map(service.directory.Write, requests))
    courses = (await service.directory.ReadCourses(dpb.ReadCoursesRequest())).courses
    assert [each.revision for each in answers] == [each.revision for each in courses]
    again = await asyncio.gather(*map(service.directory.Write, requests))
    assert [each.revision for each in again] == [each.revision for each in answers]


async def test_concurrent_writes_each_get_a_revision_of_their_own(service: Service) -> None:
    tokens = await asyncio.gather(
        *(written(service, touch(course=pb.Course(id=f"c{number}"))) for number in range(20))
    )
    revisions = sorted(state_of(token.token).revision for token in tokens)
    assert revisions == list(range(2, 22))  # the first is that of the first policy


async def test_one_key_sent_many_times_at_once_writes_once(service: Service) -> None:
    request = dpb.WriteRequest(mutations=[COURSE], idempotency_key="k", reason="term start")
    answers = await asyncio.gather(*(service.directory.Write(request) for _ in range(8)))
    assert len({answer.written_at.token for answer in answers}) == 1
    request.reason = "another"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.directory.Write(request)
    assert reason_of(caught.value) == "IDEMPOTENCY_KEY_REUSED"
    assert info_of(caught.value).metadata["idempotency_key"] == "k"


async def test_a_failed_write_leaves_its_key_free(sqlite_service: Service) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await sqlite_service.directory.Write(dpb.WriteRequest(mutations=[STUDENT], idempotency_key="k"))
    await sqlite_service.directory.Write(dpb.WriteRequest(mutations=[STUDENT, COURSE], idempotency_key="k"))
    read = await sqlite_service.directory.ReadMemberships(dpb.ReadMembershipsRequest(scope=ALGEBRA))
    assert len(read.memberships) == 1
