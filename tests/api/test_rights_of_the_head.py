"""What another server has committed decides what a person may do, however far the replica is behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from authz.domain.entities import Membership
from authz.domain.ids import PLATFORM, Scope, Subject, SubjectType, course_scope
from authz.domain.mutations import Mutation, Operation, WriteRequest
from authz.domain.origin import Origin
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import privacy_pb2 as ppb
from tests.api.test_api import touch
from tests.api.test_policies import refused
from tests.api.test_rights import ALGEBRA, SUSPENDED, acting_for, campus, given, publish, write
from tests.callers import directory_of, grant
from tests.policies import with_rows
from tests.service import Service, reason_of

COURSE = course_scope("algebra")
STU = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="stu")
REMOVAL = dpb.RemoveMemberRequest(subject=STU, scope=ALGEBRA)
HOLD = ppb.HoldSubjectRequest(subject=STU, reason="17")
RESTRICTION = ppb.RestrictSubjectRequest(subject=STU, reason="17")
MONDAY = touch(session=pb.Session(id="monday", course_id="algebra"))


def takes(name: str, scope: Scope, role: str) -> Mutation:
    return Mutation(Operation.DELETE, gives(name, scope, role).key)


def gives(name: str, scope: Scope, role: str) -> Mutation:
    return Mutation(Operation.CREATE, Membership(Subject(SubjectType.USER, name), scope, role))


Call = Callable[[Service], Awaitable[Any]]
CASES: dict[str, tuple[Mutation, Call]] = {
    "who managed members": (
        takes("tess", COURSE, "teacher"),
        lambda service: write(service, given("new", ALGEBRA, "student"), person="tess"),
    ),
    "who made sessions": (
        takes("tess", COURSE, "teacher"),
        lambda service: write(service, MONDAY, person="tess"),
    ),
    "who edited the policy": (
        takes("root", PLATFORM, "platform_admin"),
        lambda service: publish(service, with_rows("# reviewed"), "root"),
    ),
    "who held subjects": (
        takes("officer", PLATFORM, "privacy_officer"),
        lambda service: service.privacy.HoldSubject(HOLD, metadata=acting_for("officer")),
    ),
    "who removes an owner": (
        gives("stu", COURSE, "owner"),
        lambda service: service.directory.RemoveMember(REMOVAL, metadata=acting_for("tess")),
    ),
    "who suspends an owner": (
        gives("stu", COURSE, "owner"),
        lambda service: write(service, given("stu", ALGEBRA, "student", status=SUSPENDED), person="tess"),
    ),
    "who restricts an administrator": (
        gives("stu", PLATFORM, "platform_admin"),
        lambda service: service.privacy.RestrictSubject(RESTRICTION, metadata=acting_for("officer")),
    ),
}


@pytest.mark.parametrize(("elsewhere", "call"), CASES.values(), ids=CASES)
async def test_a_person_is_held_to_what_was_committed_before_the_call(
    sqlite_service: Service, sqlite_url: str, elsewhere: Mutation, call: Call
) -> None:
    await campus(sqlite_service)
    roles = {"user:other": "platform_admin", "user:officer": "privacy_officer"}
    await asyncio.to_thread(grant, sqlite_url, roles)
    with directory_of(sqlite_url) as directory:
        # Not in a thread: the call comes before the replica has heard of it.
        directory.write(WriteRequest(mutations=(elsewhere,), origin=Origin("another server")))
        assert reason_of(await refused(call(sqlite_service))) == "PERMISSION_MISSING"
