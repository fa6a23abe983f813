"""Updates over gRPC: the field mask, its faults, and who sees the change."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import watch_pb2 as wpb
from tests.api.test_api import ALGEBRA, COURSE, MATERIAL, MAYA, STUDENT, question, touch, written
from tests.api.test_policies import applied
from tests.policies import SHIPPED, with_rows
from tests.service import Service, info_of

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def update(*paths: str, **entity: object) -> dpb.Mutation:
    """An UPDATE of the fields at these paths."""
    mask = FieldMask(paths=paths)
    return dpb.Mutation(operation=dpb.OPERATION_UPDATE, update_mask=mask, **entity)  # type: ignore[arg-type]


async def refused(service: Service, mutation: dpb.Mutation) -> tuple[grpc.StatusCode, str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await written(service, mutation)
    info = info_of(caught.value)
    assert str(caught.value.details()).startswith("mutations[0]: ")
    return caught.value.code(), info.reason, str(caught.value.details()).removeprefix("mutations[0]: ")


async def test_a_suspension_by_update_is_in_effect_and_keeps_the_rest(sqlite_service: Service) -> None:
    until = pb.Membership(subject=MAYA, scope=ALGEBRA, role="student", source="roster", source_ref="e-1")
    until.ends_at.FromSeconds(4_000_000_000)
    before = await written(sqlite_service, COURSE, touch(membership=until), MATERIAL)
    assert (await sqlite_service.authorization.Check(question())).allowed
    member = pb.Membership(subject=MAYA, scope=ALGEBRA, role="student", status=pb.MEMBERSHIP_STATUS_SUSPENDED)
    await written(sqlite_service, update("status", membership=member))
    assert not (await sqlite_service.authorization.Check(question())).allowed
    until.status = pb.MEMBERSHIP_STATUS_SUSPENDED
    until.revision = 3  # after the first policy and the campus
    read = await sqlite_service.directory.ReadMemberships(dpb.ReadMembershipsRequest())
    assert list(read.memberships) == [until]
    changes = sqlite_service.watch.Watch(wpb.WatchRequest(after=before))
    async for message in changes:
        if message.HasField("change"):
            assert list(message.change.mutations) == [touch(membership=until)]
            break
    changes.cancel()


async def test_a_star_replaces_every_field_that_can_change(sqlite_service: Service) -> None:
    await written(sqlite_service, COURSE)
    concluded = pb.Course(id="algebra", state=pb.COURSE_STATE_CONCLUDED)
    await written(sqlite_service, update("*", course=concluded))
    (course,) = (await sqlite_service.directory.ReadCourses(dpb.ReadCoursesRequest())).courses
    assert (course.state, course.ai_enabled) == (pb.COURSE_STATE_CONCLUDED, False)


async def test_an_update_of_what_is_not_there_is_a_failed_precondition(service: Service) -> None:
    code, reason, message = await refused(service, update("state", course=pb.Course(id="none")))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PRECONDITION_FAILED")
    assert message == "course:none does not exist, so it cannot be updated; create it first"


async def test_a_membership_whose_role_is_gone_can_be_suspended(service: Service) -> None:
    """Else its subject could not be suspended, and would have the role again with a version that has it."""
    grader = pb.Membership(subject=MAYA, scope=ALGEBRA, role="grader")
    await written(service, COURSE, STUDENT, MATERIAL)
    await applied(service, with_rows("role, grader, course, 25, no,"))
    await written(service, touch(membership=grader))
    active = pb.Membership()
    active.CopyFrom(grader)
    await applied(service, SHIPPED)
    assert (await service.authorization.Check(question())).allowed
    grader.status = pb.MEMBERSHIP_STATUS_SUSPENDED
    omar = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="omar")
    other = pb.Membership(subject=omar, scope=ALGEBRA, role="grader")
    assert (await refused(service, touch(membership=other)))[:2] == (INVALID, "UNKNOWN_ROLE")
    grader.ends_at.FromSeconds(1)
    grader.starts_at.FromSeconds(2)
    unordered = update("starts_at", "ends_at", membership=grader)
    assert (await refused(service, unordered))[:2] == (INVALID, "MALFORMED_FIELD")
    grader.ClearField("starts_at")
    grader.ClearField("ends_at")
    for suspension in (update("status", membership=grader), touch(membership=grader)):
        await written(service, suspension)
        answer = await service.authorization.Check(question())
        assert (answer.allowed, answer.inactive_reason) == (False, apb.INACTIVE_REASON_SUSPENDED)
        await written(service, update("status", membership=active))
        assert (await service.authorization.Check(question())).allowed


RESOURCE = pb.Resource(type="material", id="m-1")


@pytest.mark.parametrize(
    ("mutation", "message"),
    [
        (update("staet", course=pb.Course(id="c")), "unknown field `staet`; did you mean `state`?"),
        (update("id", course=pb.Course(id="c")), "names `id`, which no update can change"),
        (update("revision", course=pb.Course(id="c")), "names `revision`, which no update can change"),
        (update("course_id", session=pb.Session(id="s")), "names `course_id`, which no update can change"),
        (update("scope", resource=RESOURCE), "names `scope`, which no update can change"),
        (update("scope.course_id", resource=RESOURCE), "names `scope.course_id`, which no update can change"),
        (update("owner.id", resource=RESOURCE), "a field is changed as a whole: name `owner`"),
        (update("edit_window_us", course=pb.Course(id="c")), "did you mean `edit_window`?"),
        (update("", course=pb.Course(id="c")), "names the unknown field ``; known are `ai_enabled`"),
        (update("\u202e\n", course=pb.Course(id="c")), "unknown field `\\u202e\\n`; known are"),
        (
            update(*["state"] * 101, course=pb.Course(id="c")),
            "paths has more than 100 items; send at most 100",
        ),
        (
            update(course=pb.Course(id="c", ai_enabled=True)),
            "update_mask is empty; name the fields to change",
        ),
        (
            dpb.Mutation(
                operation=dpb.OPERATION_TOUCH,
                course=pb.Course(id="c"),
                update_mask=FieldMask(paths=["state"]),
            ),
            "update_mask is only for UPDATE, and this is a TOUCH; leave it out",
        ),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_faulty_mask_is_refused_and_its_path_named(
    shared_sqlite_service: Service, mutation: dpb.Mutation, message: str
) -> None:
    code, _, said = await refused(shared_sqlite_service, mutation)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message in said


async def test_a_touch_resets_what_it_does_not_give_and_an_update_does_not(sqlite_service: Service) -> None:
    await written(sqlite_service, COURSE, STUDENT, MATERIAL)
    await written(sqlite_service, update("ai_enabled", course=pb.Course(id="algebra")))
    assert (await sqlite_service.authorization.Check(question())).allowed
    await written(sqlite_service, touch(course=pb.Course(id="algebra")))
    answer = await sqlite_service.authorization.Check(question())
    assert answer.inactive_reason == apb.INACTIVE_REASON_DRAFT_COURSE
