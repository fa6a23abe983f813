"""A call for a person reads the policy of a course, and drafts, only if the person may edit the policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from authz.v1 import policy_pb2 as pb
from tests.api.test_policies import messages, refused
from tests.api.test_rights import acting_for, campus, denied, publish
from tests.policies import SHIPPED
from tests.service import Service

ROW = "p, student, course:algebra, notebook, read, !own & !shared_view, deny\n"
COURSE_FILES = {"course.csv": ROW}

Calls = dict[str, Callable[[Any, str, str], Any]]
"""Each of a stub, a course (empty for the platform) and a person."""


def read(name: str, request: Any) -> Callable[[Any, str, str], Any]:
    """A call with the rest of its request, which `request` makes for a course."""

    def call(policy: Any, course_id: str, person: str) -> Any:
        return getattr(policy, name)(request(course_id), metadata=acting_for(person))

    return call


READS: Calls = {
    name: read(name, request)
    for name, request in {
        "ReadPolicyVersions": lambda course: pb.ReadPolicyVersionsRequest(course_id=course),
        "ReadPolicyVersion": lambda course: pb.ReadPolicyVersionRequest(course_id=course, number=1),
        "DiffPolicyVersions": lambda course: pb.DiffPolicyVersionsRequest(
            course_id=course, before_number=0 if course else 1, after_number=1
        ),
    }.items()
}
FOR_EDITORS: Calls = {
    name: read(name, request)
    for name, request in {
        "ValidatePolicy": lambda course: pb.ValidatePolicyRequest(
            course_id=course, files=messages(COURSE_FILES if course else dict(SHIPPED))
        ),
        "ReadPolicyDrafts": lambda course: pb.ReadPolicyDraftsRequest(course_id=course),
        "ReadPolicyDraft": lambda course: pb.ReadPolicyDraftRequest(course_id=course, id="d"),
    }.items()
}


@pytest.fixture
async def policy(sqlite_service: Service) -> Any:
    """The stub of a service whose course `algebra` has a policy and a draft, as the platform has."""
    await campus(sqlite_service)
    await publish(sqlite_service, COURSE_FILES, "", course_id="algebra")
    for course_id in ("algebra", ""):
        await sqlite_service.policy.CreatePolicyDraft(
            pb.CreatePolicyDraftRequest(course_id=course_id, id="d")
        )
    return sqlite_service.policy


@pytest.mark.parametrize("name", [*READS, *FOR_EDITORS])
async def test_who_may_edit_the_policy_of_a_course_reads_it(policy: Any, name: str) -> None:
    call = (READS | FOR_EDITORS)[name]
    for person in ("olga", "root", ""):
        await call(policy, "algebra", person)
    for person in ("stu", "tess", "sue", "nobody"):
        denied(await refused(call(policy, "algebra", person)), "edit_policy", "course:algebra")


@pytest.mark.parametrize("name", READS)
async def test_the_published_policy_of_the_platform_is_read_for_every_person(policy: Any, name: str) -> None:
    for person in ("stu", "root", ""):
        await READS[name](policy, "", person)


@pytest.mark.parametrize("name", FOR_EDITORS)
async def test_who_may_edit_the_policy_of_the_platform_validates_it_and_reads_its_drafts(
    policy: Any, name: str
) -> None:
    for person in ("root", ""):
        await FOR_EDITORS[name](policy, "", person)
    denied(await refused(FOR_EDITORS[name](policy, "", "olga")), "edit_policy", "platform")


async def test_who_may_edit_the_policy_of_the_platform_reads_which_courses_have_one(policy: Any) -> None:
    def call(person: str) -> Any:
        return policy.ReadPolicyActivations(pb.ReadPolicyActivationsRequest(), metadata=acting_for(person))

    for person in ("root", ""):
        assert len((await call(person)).policy_activations) == 2
    denied(await refused(call("olga")), "edit_policy", "platform")
