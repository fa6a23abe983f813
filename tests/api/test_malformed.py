"""Malformed ids, tokens, checks and mutations are refused by name, and nothing is written."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import grpc
import pytest

from authz.domain.tokens import ConsistencyToken
from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import watch_pb2 as wpb
from tests.api.test_api import ALGEBRA, COURSE, MAYA, question, touch, written
from tests.service import Service, reason_of
from tests.tokens import made_up, state_of, unsigned

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("other", ["nonsense", "", made_up(ConsistencyToken("other", 1))])
async def test_a_token_that_is_not_ours_is_refused(shared_sqlite_service: Service, other: str) -> None:
    consistency = pb.Consistency(at_least_as_fresh=pb.ConsistencyToken(token=other))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shared_sqlite_service.authorization.Check(question(consistency=consistency))
    assert reason_of(caught.value) == "MALFORMED_TOKEN"


async def test_a_token_that_somebody_made_up_is_refused_by_check_and_watch(
    shared_sqlite_service: Service,
) -> None:
    service = shared_sqlite_service
    read = await service.directory.ReadCourses(dpb.ReadCoursesRequest())
    known = state_of(read.read_at.token)
    for made in (made_up(known), unsigned(known), made_up(ConsistencyToken(known.database_id, 0))):
        token = pb.ConsistencyToken(token=made)
        check = service.authorization.Check(question(consistency=pb.Consistency(at_least_as_fresh=token)))
        watch = anext(aiter(service.watch.Watch(wpb.WatchRequest(after=token))))
        for call in (check, watch):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert reason_of(caught.value) == "MALFORMED_TOKEN"


BAD_IDS = ["", "a" * 129, "ma ya", "m\u00e4ya", "ma\nya", "ma\x00ya", "*", "a,b", "\u202emaya"]


@pytest.mark.parametrize("bad", BAD_IDS)
async def test_a_malformed_id_is_refused_by_name(shared_sqlite_service: Service, bad: str) -> None:
    request = question()
    request.subject.id = bad
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shared_sqlite_service.authorization.Check(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(caught.value) == "MALFORMED_ID"
    assert "subject.id" in str(caught.value.details())


BAD_CHECKS = [
    (apb.CheckRequest(), "MISSING_FIELD", "action"),
    (apb.CheckRequest(action="read"), "MISSING_FIELD", "subject"),
    (apb.CheckRequest(action="read", subject=MAYA), "MISSING_FIELD", "resource"),
    (question("raed"), "UNKNOWN_ACTION", "did you mean `read`"),
    (question("re ad"), "UNKNOWN_ACTION", "re ad"),
    (question(resource_id=""), "MISSING_FIELD", "resource.id"),
    (question("create"), "MALFORMED_FIELD", "m-1"),
    (question("create", ""), "MISSING_FIELD", "course_id"),
    (question(purpose="x" * 65), "MALFORMED_FIELD", "purpose"),
    (question(request_id="a b"), "MALFORMED_ID", "request_id"),
    (
        apb.CheckRequest(
            action="read",
            subject=pb.Subject(type=7, id="maya"),  # type: ignore[arg-type]  # not a member of the enum
            resource=apb.ResourceQuery(type="material", id="m"),
        ),
        "MALFORMED_FIELD",
        "subject.type",
    ),
    (
        apb.CheckRequest(action="read", subject=MAYA, resource=apb.ResourceQuery(type="materiel", id="m")),
        "UNKNOWN_TYPE",
        "did you mean `material`",
    ),
]


@pytest.mark.parametrize(("request_", "reason", "named"), BAD_CHECKS)
async def test_a_malformed_check_is_refused_by_name(
    shared_sqlite_service: Service, request_: apb.CheckRequest, reason: str, named: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shared_sqlite_service.authorization.Check(request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(caught.value) == reason
    assert named in str(caught.value.details())


BAD_MUTATIONS = [
    (dpb.Mutation(course=pb.Course(id="a")), "MISSING_FIELD", "operation"),
    (dpb.Mutation(operation=dpb.OPERATION_TOUCH), "MISSING_FIELD", "entity"),
    (
        touch(course=pb.Course(id="a", state=99)),  # type: ignore[arg-type]  # not a member of the enum
        "MALFORMED_FIELD",
        "course.state",
    ),
    (touch(course=pb.Course(id="a b")), "MALFORMED_ID", "course.id"),
    (touch(membership=pb.Membership(subject=MAYA, scope=ALGEBRA)), "MISSING_FIELD", "role"),
    (touch(membership=pb.Membership(subject=MAYA, role="student")), "MISSING_FIELD", "scope"),
    (touch(membership=pb.Membership(subject=MAYA, scope=ALGEBRA, role="host")), "UNKNOWN_ROLE", "host"),
    (touch(resource=pb.Resource(type="course", id="a", scope=ALGEBRA)), "UNKNOWN_TYPE", "course"),
    (
        touch(share=pb.Share(resource_type="notebook", resource_id="n", subject=MAYA)),
        "MISSING_FIELD",
        "level",
    ),
]


@pytest.mark.parametrize(("mutation", "reason", "named"), BAD_MUTATIONS)
async def test_a_malformed_mutation_is_refused_and_nothing_written(
    shared_sqlite_service: Service, mutation: dpb.Mutation, reason: str, named: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await written(shared_sqlite_service, COURSE, mutation)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(caught.value) == reason
    assert named in str(caught.value.details())
    assert not (await shared_sqlite_service.directory.ReadCourses(dpb.ReadCoursesRequest())).courses


async def test_refused_requests_are_not_kept(shared_sqlite_service: Service) -> None:
    channel: Any = shared_sqlite_service.channel
    batch_check = channel.unary_unary("/authz.v1.AuthorizationService/BatchCheck")
    too_many = b"\x12\x00" * 2_000_000
    # A garbage collection may come only after as many objects as a thousand such requests make.
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(10):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await batch_check(too_many)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            del caught
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert held_bytes < 3 * len(too_many)
