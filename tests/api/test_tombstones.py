"""A resource that was registered and deleted is described by nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from tests.service import Service, serve

MAYA = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="maya")
COURSES = [pb.Scope(course_id=name) for name in ("algebra", "geometry")]


@pytest.fixture
async def service(store_url: str) -> AsyncIterator[Service]:
    """A server that lets requests describe messages; Maya is a student of two courses."""
    async with serve(store_url, inline_types="message") as each:
        for scope in COURSES:
            member = pb.Membership(
                subject=MAYA, scope=scope, role="student", status=pb.MEMBERSHIP_STATUS_ACTIVE
            )
            await write(each, course=pb.Course(id=scope.course_id, state=pb.COURSE_STATE_ACTIVE))
            await write(each, membership=member)
        yield each


async def write(service: Service, operation: int = dpb.OPERATION_TOUCH, **target: object) -> None:
    mutation = dpb.Mutation(operation=operation, **target)  # type: ignore[arg-type]  # one of its fields
    await service.directory.Write(dpb.WriteRequest(mutations=[mutation]))


def message(scope: pb.Scope) -> pb.Resource:
    return pb.Resource(
        type="message", id="m-1", scope=scope, owner=MAYA, visibility=pb.VISIBILITY_COURSE, published=True
    )


async def described(service: Service, scope: pb.Scope) -> apb.CheckResponse:
    """The answer to Maya for the message as the request describes it."""
    inline = apb.InlineResource(scope=scope, owner=MAYA, visibility=pb.VISIBILITY_COURSE, published=True)
    query = apb.ResourceQuery(type="message", id="m-1", inline=inline)
    answer: apb.CheckResponse = await service.authorization.Check(
        apb.CheckRequest(subject=MAYA, action="read", resource=query)
    )
    return answer


@pytest.mark.parametrize("by", ["itself", "its course"])
async def test_a_deleted_resource_is_unknown_however_it_is_described(service: Service, by: str) -> None:
    algebra, geometry = COURSES
    assert (await described(service, geometry)).allowed
    await write(service, resource=message(algebra))
    if by == "itself":
        await write(service, dpb.OPERATION_DELETE, resource=message(algebra))
    else:
        await write(service, dpb.OPERATION_DELETE, course=pb.Course(id="algebra"))
    answer = await described(service, geometry)
    assert (answer.allowed, answer.reason) == (False, apb.REASON_RESOURCE_UNKNOWN)
    await write(service, resource=message(geometry))
    assert (await described(service, geometry)).allowed
