"""The service as a client sees it, over a real channel, on both databases."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import timestamp_pb2

from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from tests.service import START, Service, reason_of

MAYA = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="maya")
ALGEBRA = pb.Scope(course_id="algebra")


def touch(**entity: object) -> dpb.Mutation:
    return dpb.Mutation(operation=dpb.OPERATION_TOUCH, **entity)  # type: ignore[arg-type]  # one of five


def delete(**entity: object) -> dpb.Mutation:
    return dpb.Mutation(operation=dpb.OPERATION_DELETE, **entity)  # type: ignore[arg-type]  # one of five


COURSE = touch(course=pb.Course(id="algebra", state=pb.COURSE_STATE_ACTIVE))
STUDENT = touch(membership=pb.Membership(subject=MAYA, scope=ALGEBRA, role="student"))
MATERIAL = touch(resource=pb.Resource(type="material", id="m-1", scope=ALGEBRA, published=True))


def question(action: str = "read", resource_id: str = "m-1", **fields: object) -> apb.CheckRequest:
    query = apb.ResourceQuery(type="material", id=resource_id)
    return apb.CheckRequest(subject=MAYA, action=action, resource=query, **fields)  # type: ignore[arg-type]


async def written(service: Service, *mutations: dpb.Mutation) -> pb.ConsistencyToken:
    response = await service.directory.Write(dpb.WriteRequest(mutations=mutations))
    token: pb.ConsistencyToken = response.written_at
    return token


async def test_what_is_written_is_checked_with_its_reason(service: Service) -> None:
    token = await written(service, STUDENT, MATERIAL, COURSE)
    fresh = pb.Consistency(at_least_as_fresh=token)
    answer = await service.authorization.Check(question(consistency=fresh))
    assert answer.allowed
    assert answer.reason == apb.REASON_ROLE_GRANT
    assert (answer.rule.role, answer.rule.condition) == ("student", "published")
    assert answer.rule.source.startswith("default.csv:")
    assert answer.checked_at == token
    assert answer.policy_version
    assert answer.decision_id
    assert not answer.HasField("valid_until")


async def test_a_revoked_membership_is_gone_with_the_next_check(sqlite_service: Service) -> None:
    await written(sqlite_service, STUDENT, MATERIAL, COURSE)
    await written(
        sqlite_service, delete(membership=pb.Membership(subject=MAYA, scope=ALGEBRA, role="student"))
    )
    answer = await sqlite_service.authorization.Check(question())
    assert not answer.allowed
    assert answer.reason == apb.REASON_NOT_A_MEMBER


async def test_a_membership_ends_at_its_second_and_says_so_before(sqlite_service: Service) -> None:
    service = sqlite_service
    end = timestamp_pb2.Timestamp(seconds=START // 1_000_000 + 10)
    membership = pb.Membership(subject=MAYA, scope=ALGEBRA, role="student", ends_at=end)
    await written(service, touch(membership=membership), MATERIAL, COURSE)
    before = await service.authorization.Check(question())
    assert before.allowed
    assert before.valid_until == end
    service.now = START + 10_000_000 - 1
    assert (await service.authorization.Check(question())).allowed
    service.now = START + 10_000_000
    after = await service.authorization.Check(question())
    assert not after.allowed
    assert after.inactive_reason == apb.INACTIVE_REASON_ENDED


async def test_a_batch_answers_in_order_and_a_bad_item_fails_alone(sqlite_service: Service) -> None:
    await written(sqlite_service, STUDENT, MATERIAL, COURSE)
    items = [question(), question("raed"), question("update"), apb.CheckRequest()]
    response = await sqlite_service.authorization.BatchCheck(apb.BatchCheckRequest(items=items))
    kinds = [result.WhichOneof("result") for result in response.results]
    assert kinds == ["response", "error", "response", "error"]
    assert response.results[0].response.allowed
    assert not response.results[2].response.allowed
    assert "raed" in response.results[1].error.message
    assert {r.response.checked_at.token for r in response.results if r.HasField("response")} == {
        response.checked_at.token
    }


async def test_an_item_of_a_batch_with_a_consistency_of_its_own_fails_alone_by_name(
    sqlite_service: Service,
) -> None:
    await written(sqlite_service, STUDENT, MATERIAL, COURSE)
    fresh, asked = pb.Consistency(fully_consistent=True), apb.ResourceQuery(type="material", id="m-1")
    authorization = sqlite_service.authorization
    checks = [question(), question()]
    checks[1].consistency.CopyFrom(fresh)
    lists = [apb.ListActionsRequest(subject=MAYA, resource=asked, consistency=each) for each in (None, fresh)]
    checked = await authorization.BatchCheck(apb.BatchCheckRequest(items=checks, consistency=fresh))
    listed = await authorization.BatchListActions(apb.BatchListActionsRequest(items=lists, consistency=fresh))
    for response in (checked, listed):
        good, bad = response.results
        assert good.WhichOneof("result") == "response"
        assert bad.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert bad.error.message.startswith("items[1].consistency is of one item")
        assert "set the `consistency` of the batch" in bad.error.message


async def test_list_actions_tells_what_a_user_interface_may_offer(sqlite_service: Service) -> None:
    await written(sqlite_service, STUDENT, MATERIAL, COURSE)
    request = apb.ListActionsRequest(subject=MAYA, resource=apb.ResourceQuery(type="material", id="m-1"))
    response = await sqlite_service.authorization.ListActions(request)
    assert [each.action for each in response.actions if each.allowed] == ["read"]
    assert len(response.actions) == 5


async def test_a_write_is_all_or_nothing(sqlite_service: Service) -> None:
    bad = touch(membership=pb.Membership(subject=MAYA, scope=pb.Scope(course_id="none"), role="student"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await written(sqlite_service, COURSE, bad)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason_of(caught.value) == "REFERENCE_NOT_FOUND"
    assert "course:none" in str(caught.value.details())
    assert not (await sqlite_service.directory.ReadCourses(dpb.ReadCoursesRequest())).courses


async def test_an_idempotency_key_gives_the_first_answer_again(sqlite_service: Service) -> None:
    request = dpb.WriteRequest(mutations=[COURSE], idempotency_key="k-1")
    first = await sqlite_service.directory.Write(request)
    await written(sqlite_service, STUDENT)
    assert await sqlite_service.directory.Write(request) == first
    other = dpb.WriteRequest(mutations=[MATERIAL], idempotency_key="k-1")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await sqlite_service.directory.Write(other)
    assert reason_of(caught.value) == "IDEMPOTENCY_KEY_REUSED"


async def test_a_precondition_on_a_version_stops_a_lost_update(sqlite_service: Service) -> None:
    await written(sqlite_service, COURSE)
    read = (await sqlite_service.directory.ReadCourses(dpb.ReadCoursesRequest())).courses[0]
    changed = touch(course=pb.Course(id="algebra", state=pb.COURSE_STATE_CONCLUDED))
    guard = dpb.Precondition(
        expectation=dpb.EXPECTATION_AT_REVISION, course=pb.Course(id="algebra", revision=read.revision)
    )
    request = dpb.WriteRequest(mutations=[changed], preconditions=[guard])
    await sqlite_service.directory.Write(request)
    request.mutations[0].course.state = pb.COURSE_STATE_ARCHIVED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await sqlite_service.directory.Write(request)
    assert reason_of(caught.value) == "PRECONDITION_FAILED"


async def test_an_import_reports_faults_by_position_and_takes_the_rest(sqlite_service: Service) -> None:
    bad = touch(membership=pb.Membership(subject=MAYA, scope=ALGEBRA, role="studnt"))
    unparsed = dpb.Mutation()
    messages = [
        dpb.ImportRequest(mutations=[COURSE, bad]),
        dpb.ImportRequest(mutations=[unparsed, STUDENT, MATERIAL, COURSE]),
    ]
    response = await sqlite_service.directory.Import(iter(messages))
    assert (response.written, response.unchanged, response.failed) == (3, 1, 2)
    assert [(e.position, e.reason) for e in response.errors] == [(1, "UNKNOWN_ROLE"), (2, "MISSING_FIELD")]
    assert (await sqlite_service.authorization.Check(question())).allowed


async def test_reads_page_with_opaque_tokens_and_filter(service: Service) -> None:
    members = [
        touch(
            membership=pb.Membership(
                subject=pb.Subject(type=pb.SUBJECT_TYPE_USER, id=f"u{number}"), scope=ALGEBRA, role="student"
            )
        )
        for number in range(5)
    ]
    await written(service, COURSE, *members)
    seen: list[str] = []
    request = dpb.ReadMembershipsRequest(scope=ALGEBRA, page_size=2)
    while True:
        response = await service.directory.ReadMemberships(request)
        seen += [m.subject.id for m in response.memberships]
        request.page_token = response.next_page_token
        if not request.page_token:
            break
    assert seen == [f"u{number}" for number in range(5)]
    none = dpb.ReadMembershipsRequest(scope=ALGEBRA, statuses=[pb.MEMBERSHIP_STATUS_SUSPENDED])
    assert not (await service.directory.ReadMemberships(none)).memberships


async def test_a_token_of_the_future_is_waited_for_and_then_unavailable(sqlite_service: Service) -> None:
    ahead = sqlite_service.moved(await written(sqlite_service, COURSE), 1)
    consistency = pb.Consistency(at_least_as_fresh=ahead)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await sqlite_service.authorization.Check(question(consistency=consistency), timeout=0.5)
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_too_many_items_are_refused_with_the_limit(sqlite_service: Service) -> None:
    calls = [
        sqlite_service.directory.Write(dpb.WriteRequest(mutations=[COURSE] * 1001)),
        sqlite_service.authorization.BatchCheck(apb.BatchCheckRequest(items=[question()] * 1001)),
    ]
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert reason_of(caught.value) == "TOO_MANY_ITEMS"
        assert "1000" in str(caught.value.details())


async def test_a_message_over_the_limit_is_refused(sqlite_service: Service) -> None:
    request = dpb.WriteRequest(mutations=[COURSE], reason="x" * 5_000_000)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await sqlite_service.directory.Write(request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
