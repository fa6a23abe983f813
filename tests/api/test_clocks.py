"""What a clock that is set back, or that is behind another machine's, does not change."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from tests.service import START, Service

MAYA = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="maya")
ALGEBRA = pb.Scope(course_id="algebra")
SECOND = 1_000_000


async def write(service: Service, **target: object) -> None:
    mutation = dpb.Mutation(operation=dpb.OPERATION_TOUCH, **target)  # type: ignore[arg-type]  # one of its fields
    await service.directory.Write(dpb.WriteRequest(mutations=[mutation]))


async def enrol(service: Service, **fields: object) -> None:
    member = pb.Membership(
        subject=MAYA,
        scope=ALGEBRA,
        role="student",
        status=pb.MEMBERSHIP_STATUS_ACTIVE,
        **fields,  # type: ignore[arg-type]  # open in tests
    )
    await write(service, course=pb.Course(id="algebra", state=pb.COURSE_STATE_ACTIVE))
    await write(service, membership=member)


async def may(service: Service, action: str, type_: str, id_: str) -> bool:
    query = apb.ResourceQuery(type=type_, id=id_)
    answer = await service.authorization.Check(apb.CheckRequest(subject=MAYA, action=action, resource=query))
    return bool(answer.allowed)


def at(instant: int) -> Timestamp:
    time = Timestamp()
    time.FromMicroseconds(instant)
    return time


async def test_a_role_that_has_ended_does_not_come_back_with_a_clock_that_is_set_back(
    sqlite_service: Service,
) -> None:
    await enrol(sqlite_service, ends_at=at(START + 60 * SECOND))
    assert await may(sqlite_service, "read", "course", "algebra")
    sqlite_service.now = START + 60 * SECOND
    assert not await may(sqlite_service, "read", "course", "algebra")
    sqlite_service.now = START
    assert not await may(sqlite_service, "read", "course", "algebra")


async def test_a_decision_is_not_earlier_than_the_commit_that_it_sees(sqlite_service: Service) -> None:
    await enrol(sqlite_service, ends_at=at(START + 60 * SECOND))
    sqlite_service.now = START + 120 * SECOND
    await write(sqlite_service, course=pb.Course(id="other", state=pb.COURSE_STATE_ACTIVE))
    sqlite_service.now = START
    assert not await may(sqlite_service, "read", "course", "algebra")


@pytest.mark.parametrize(("ahead_s", "allowed"), [(0, True), (5, True), (6, False)])
async def test_what_was_created_a_little_later_than_now_counts_as_new(
    sqlite_service: Service, ahead_s: int, allowed: bool
) -> None:
    await enrol(sqlite_service)
    message = pb.Resource(
        type="message",
        id="m-1",
        scope=ALGEBRA,
        owner=MAYA,
        visibility=pb.VISIBILITY_COURSE,
        published=True,
        created_at=at(START + ahead_s * SECOND),
    )
    await write(sqlite_service, resource=message)
    assert await may(sqlite_service, "update", "message", "m-1") is allowed
