"""Policies of courses, from the outside: for one course alone, and only as the platform's lets them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc
import pytest

from authz.domain.entities import PolicyActivation, PolicyVersion
from authz.domain.files import files_digest, files_text
from authz.domain.ids import course_scope
from authz.domain.mutations import Mutation, Operation
from authz.policy.course import COURSE_FILE
from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import policy_pb2 as ppb
from tests.api.test_api import ALGEBRA, COURSE, MATERIAL, MAYA, STUDENT, delete, question, touch, written
from tests.api.test_policies import applied, messages, refused
from tests.api.watching import mutations_of, told
from tests.policies import SHIPPED, with_rows
from tests.service import Service, reason_of, violations_of
from tests.store.directory import open_with, write

CHEMISTRY = pb.Scope(course_id="chemistry")
OTHER = (
    touch(course=pb.Course(id="chemistry", state=pb.COURSE_STATE_ACTIVE)),
    touch(membership=pb.Membership(subject=MAYA, scope=CHEMISTRY, role="student")),
    touch(resource=pb.Resource(type="material", id="c-1", scope=CHEMISTRY, published=True)),
)
CLOSES = "p, student, course:algebra, material, read, , deny"


def course_files(*rows: str) -> dict[str, str]:
    return {COURSE_FILE: "".join(f"{row}\n" for row in rows)}


async def applied_in(
    service: Service, *rows: str, course_id: str = "algebra", **fields: Any
) -> ppb.ApplyPolicyResponse:
    return await applied(service, course_files(*rows), course_id=course_id, **fields)


async def read_in(service: Service, course_id: str = "algebra", number: int = 0) -> Any:
    request = ppb.ReadPolicyVersionRequest(course_id=course_id, number=number)
    return await service.policy.ReadPolicyVersion(request)


async def test_a_course_policy_decides_in_its_course_alone_from_its_token_on(service: Service) -> None:
    await written(service, COURSE, STUDENT, MATERIAL, *OTHER)
    before = await service.authorization.Check(question())
    assert (before.allowed, before.course_policy_version) == (True, "")
    published = await applied_in(service, CLOSES, author="ada", reason="exam week")
    assert (published.changed, published.active.number, published.active.author) == (True, 1, "ada")
    fresh = pb.Consistency(at_least_as_fresh=published.written_at)
    answer = await service.authorization.Check(question(consistency=fresh))
    assert (answer.allowed, answer.reason) == (False, apb.REASON_EXPLICIT_DENY)
    assert (answer.policy_version, answer.course_policy_version) == ("1", "1")
    assert (answer.rule.scope, answer.rule.source) == ("course:algebra", "course.csv:1")
    batch = apb.BatchCheckRequest(items=[question(), question(resource_id="c-1")])
    here, there = (result.response for result in (await service.authorization.BatchCheck(batch)).results)
    assert (here.allowed, here.course_policy_version) == (False, "1")
    assert (there.allowed, there.course_policy_version) == (True, "")
    offered = await service.authorization.ListActions(
        apb.ListActionsRequest(subject=MAYA, resource=question().resource)
    )
    assert offered.course_policy_version == "1"
    assert not any(action.allowed for action in offered.actions)


async def test_a_stranger_is_told_the_version_of_the_course_too(sqlite_service: Service) -> None:
    await written(sqlite_service, COURSE, MATERIAL)
    await applied_in(sqlite_service, CLOSES)
    answer = await sqlite_service.authorization.Check(question())
    assert (answer.reason, answer.course_policy_version) == (apb.REASON_NOT_A_MEMBER, "1")


async def test_it_adds_what_the_platform_does_not_give(sqlite_service: Service) -> None:
    service = sqlite_service
    assistant = touch(membership=pb.Membership(subject=MAYA, scope=ALGEBRA, role="teaching_assistant"))
    await written(service, COURSE, MATERIAL, assistant)
    assert not (await service.authorization.Check(question("update"))).allowed
    await applied_in(service, "p, teaching_assistant, course:algebra, material, update, , allow")
    assert (await service.authorization.Check(question("update"))).allowed


async def test_of_two_first_policies_at_once_one_is_refused_if_both_expect_none(service: Service) -> None:
    await written(service, COURSE)
    outcomes = await asyncio.gather(
        *(applied_in(service, f"# {name}", expected_active_number=0) for name in ("ada", "ben")),
        return_exceptions=True,
    )
    (lost,) = (each for each in outcomes if isinstance(each, grpc.aio.AioRpcError))
    assert (lost.code(), reason_of(lost)) == (grpc.StatusCode.FAILED_PRECONDITION, "PRECONDITION_FAILED")
    assert "the active version is 1, not none" in str(lost.details())
    assert (await read_in(service)).active_number == 1
    assert (await applied_in(service, "# whatever is active")).active.number == 2


async def test_its_versions_are_its_own(sqlite_service: Service) -> None:
    await written(sqlite_service, COURSE, STUDENT, MATERIAL, *OTHER)
    error = await refused(read_in(sqlite_service))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.NOT_FOUND, "VERSION_NOT_FOUND")
    assert "course:algebra has no policy of its own" in str(error.details())
    await applied_in(sqlite_service, CLOSES)
    again = await applied_in(sqlite_service, CLOSES)
    assert (again.changed, again.active.number) == (False, 1)
    await applied_in(sqlite_service, "# open", expected_active_number=1)
    assert (await sqlite_service.authorization.Check(question())).allowed
    error = await refused(applied_in(sqlite_service, CLOSES, expected_active_number=1))
    assert "the active version is 2, not 1" in str(error.details())
    back = await sqlite_service.policy.RollBackPolicy(
        ppb.RollBackPolicyRequest(number=1, course_id="algebra")
    )
    assert (back.changed, back.active.number) == (True, 3)
    answer = await sqlite_service.authorization.Check(question())
    assert (answer.allowed, answer.course_policy_version) == (False, "3")
    listed = await sqlite_service.policy.ReadPolicyVersions(
        ppb.ReadPolicyVersionsRequest(course_id="algebra")
    )
    assert [version.number for version in listed.policy_versions] == [1, 2, 3]
    assert [(f.name, f.text) for f in (await read_in(sqlite_service, number=2)).policy_version.files] == [
        (COURSE_FILE, "# open\n")
    ]
    platform = await sqlite_service.policy.ReadPolicyVersions(ppb.ReadPolicyVersionsRequest())
    assert [version.number for version in platform.policy_versions] == [1]
    error = await refused(read_in(sqlite_service, "chemistry"))
    assert reason_of(error) == "VERSION_NOT_FOUND"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("p, student, course:chemistry, material, read, , deny", "write `course:algebra`"),
        ("p, student, course:algebra, material, raed, , deny", "did you mean `read`?"),
        ("p, student, course:algebra, material, read, , allow", "`unpublished-materials`"),
        ("p, *, course:algebra, *, edit_policy, , allow", "which the platform locks"),
    ],
    ids=["another course", "a name", "an invariant", "a lock"],
)
async def test_what_it_must_not_say_is_refused_with_its_place(
    sqlite_service: Service, row: str, says: str
) -> None:
    await written(sqlite_service, COURSE)
    error = await refused(applied_in(sqlite_service, "# why", row))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "POLICY_INVALID")
    (violation,) = violations_of(error)
    assert violation.field.startswith("course.csv:2:")
    assert says in violation.description
    request = ppb.ValidatePolicyRequest(files=messages(course_files(row)), course_id="algebra")
    assert [fault.line for fault in (await sqlite_service.policy.ValidatePolicy(request)).faults] == [1]
    assert reason_of(await refused(read_in(sqlite_service))) == "VERSION_NOT_FOUND"


async def test_a_course_that_does_not_exist_has_no_policy(sqlite_service: Service) -> None:
    error = await refused(applied_in(sqlite_service, CLOSES))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "REFERENCE_NOT_FOUND")
    assert "course:algebra does not exist" in str(error.details())
    service, files = sqlite_service.policy, messages(course_files(CLOSES))
    for asked in (
        service.ValidatePolicy(ppb.ValidatePolicyRequest(files=files, course_id="algebra")),
        service.DiffPolicyVersions(ppb.DiffPolicyVersionsRequest(after_files=files, course_id="algebra")),
        service.PreviewPolicy(ppb.PreviewPolicyRequest(files=files, course_id="algebra")).read(),
    ):
        assert "course:algebra does not exist" in str((await refused(asked)).details())
    error = await refused(applied_in(sqlite_service, CLOSES, course_id="a b"))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_ID")


async def test_validating_only_stores_nothing(sqlite_service: Service) -> None:
    await written(sqlite_service, COURSE)
    tried = await applied_in(sqlite_service, CLOSES, validate_only=True)
    assert tried.changed
    assert not tried.HasField("active")
    assert reason_of(await refused(read_in(sqlite_service))) == "VERSION_NOT_FOUND"


async def test_a_course_made_anew_with_the_same_id_has_no_policy_of_the_old_one(service: Service) -> None:
    await written(service, COURSE, STUDENT, MATERIAL)
    await applied_in(service, CLOSES)
    await applied_in(service, CLOSES, "# again")
    assert not (await service.authorization.Check(question())).allowed
    gone = await written(service, delete(course=pb.Course(id="algebra")))
    error = await refused(applied_in(service, CLOSES))
    assert reason_of(error) == "REFERENCE_NOT_FOUND"
    # A publish of the platform's policy does not look at what is gone.
    await applied(service, with_rows("# another"))
    token = await written(service, COURSE, STUDENT, MATERIAL)
    fresh = pb.Consistency(at_least_as_fresh=token)
    answer = await service.authorization.Check(question(consistency=fresh))
    assert (answer.allowed, answer.course_policy_version) == (True, "")
    assert reason_of(await refused(read_in(service))) == "VERSION_NOT_FOUND"
    assert reason_of(await refused(read_in(service, number=1))) == "VERSION_NOT_FOUND"
    assert (await applied_in(service, CLOSES)).active.number == 1
    removed = mutations_of(await told(service, gone, after=service.moved(gone, -1)))
    assert {m.WhichOneof("entity") for m in removed} >= {"policy_version", "policy_activation", "course"}


@pytest.mark.parametrize("scopes", [[], [ALGEBRA], [CHEMISTRY]], ids=["all", "its course", "another"])
async def test_a_watch_announces_it_to_those_who_watch_its_course(
    sqlite_service: Service, scopes: list[pb.Scope]
) -> None:
    token = await written(sqlite_service, COURSE, *OTHER)
    published = await applied_in(sqlite_service, CLOSES)
    changes = mutations_of(await told(sqlite_service, published.written_at, after=token, scopes=scopes))
    activations = [m.policy_activation for m in changes if m.HasField("policy_activation")]
    expected = [] if scopes == [CHEMISTRY] else [(ALGEBRA, 1, published.active.digest)]
    assert [(each.scope, each.number, each.digest) for each in activations] == expected


GRADER = "role, grader, course, 25, no,"
TAKES_UPDATES = """
[never.assistants-change-no-materials]
says = "assistants leave materials alone"
roles = ["teaching_assistant"]
types = ["material"]
actions = ["update"]
"""


async def platform_number(service: Service) -> int:
    found = await service.policy.ReadPolicyVersion(ppb.ReadPolicyVersionRequest())
    return int(found.active_number)


@pytest.mark.parametrize(
    ("row", "files", "says"),
    [
        (CLOSES, with_rows(GRADER, "lock, student, material, read"), "which the platform locks"),
        ("p, grader, course:algebra, material, read, , allow", SHIPPED, "unknown role `grader`"),
        (
            "p, teaching_assistant, course:algebra, material, update, , allow",
            SHIPPED | {"invariants.toml": SHIPPED["invariants.toml"] + TAKES_UPDATES},
            "`assistants-change-no-materials`",
        ),
    ],
    ids=["a lock", "a name", "an invariant"],
)
async def test_a_platform_policy_under_which_a_course_no_longer_passes_is_refused_before(
    sqlite_service: Service, row: str, files: Mapping[str, str], says: str
) -> None:
    await written(sqlite_service, COURSE, *OTHER)
    await applied(sqlite_service, with_rows(GRADER.replace("25", "35")))
    await applied_in(sqlite_service, "# why", row)
    await applied_in(sqlite_service, "# fine", course_id="chemistry")
    for refuse in (applied(sqlite_service, files), applied(sqlite_service, files, validate_only=True)):
        error = await refused(refuse)
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "POLICY_INVALID")
        (violation,) = violations_of(error)
        assert violation.field.startswith("course:algebra/course.csv:2:")
        assert says in violation.description
    assert await platform_number(sqlite_service) == 2
    await applied_in(sqlite_service, "# open again")
    assert (await applied(sqlite_service, files)).active.number == 3


async def test_a_rollback_under_which_a_course_no_longer_passes_is_refused_too(
    sqlite_service: Service,
) -> None:
    await written(sqlite_service, COURSE)
    await applied(sqlite_service, with_rows(GRADER))
    await applied_in(sqlite_service, "p, grader, course:algebra, notebook, read, own, allow")
    back = sqlite_service.policy.RollBackPolicy(ppb.RollBackPolicyRequest(number=1))
    assert "unknown role `grader`" in violations_of(await refused(back))[0].description
    assert await platform_number(sqlite_service) == 2


async def test_courses_that_change_while_the_platform_does_never_end_up_under_what_refuses_them(
    service: Service,
) -> None:
    ids = [f"c{number}" for number in range(4)]
    await written(service, *(touch(course=pb.Course(id=each)) for each in ids))
    locking, publishing = with_rows("lock, student, material, *"), True

    async def keep_changing(course_id: str) -> None:
        """Apply what the lock refuses, and what it does not, until the platform has published."""
        number = 0
        while publishing:
            number += 1
            rows = (f"p, student, course:{course_id}, material, read, , deny",) if number % 2 else ()
            try:
                await applied_in(service, f"# {number}", *rows, course_id=course_id)
            except grpc.aio.AioRpcError as error:
                assert reason_of(error) in ("POLICY_INVALID", "WRITE_CONFLICT")

    async def publish() -> list[str]:
        nonlocal publishing
        outcomes = []
        for files in (locking, with_rows("# 1"), locking, with_rows("# 2"), locking):
            try:
                await applied(service, files)
                outcomes.append("published")
            except grpc.aio.AioRpcError as error:
                outcomes.append(reason_of(error))
        publishing = False
        return outcomes

    publisher = asyncio.create_task(publish())
    await asyncio.gather(publisher, *map(keep_changing, ids))
    outcomes = publisher.result()
    assert set(outcomes) <= {"published", "POLICY_INVALID"}
    # What refuses nothing is published, however busy the courses are.
    assert outcomes[1] == outcomes[3] == "published"
    active = await service.policy.ReadPolicyVersion(ppb.ReadPolicyVersionRequest())
    for course_id in ids:
        (file,) = (await read_in(service, course_id)).policy_version.files
        request = ppb.ValidatePolicyRequest(files=[file], course_id=course_id)
        assert not (await service.policy.ValidatePolicy(request)).faults, active.active_number


async def test_a_course_policy_of_a_later_release_stops_the_decisions_of_its_course_alone(
    sqlite_service: Service, sqlite_url: str
) -> None:
    service = sqlite_service
    await written(service, COURSE, STUDENT, MATERIAL, *OTHER)
    store, scope, files = open_with(sqlite_url), course_scope("algebra"), files_text(course_files(CLOSES))
    version = PolicyVersion(scope=scope, number=1, digest=files_digest(files), files=files, format=99)
    activation = PolicyActivation(scope=scope, number=1, digest=version.digest)
    write(store, Mutation(Operation.CREATE, version), Mutation(Operation.CREATE, activation))
    store.close()
    latest = pb.Consistency(fully_consistent=True)
    error = await refused(service.authorization.Check(question(consistency=latest)))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAVAILABLE, "POLICY_UNUSABLE")
    assert "version 1 of the policy of course:algebra has format 99" in str(error.details())
    batch = apb.BatchCheckRequest(items=[question(), question(resource_id="c-1")])
    here, there = (await service.authorization.BatchCheck(batch)).results
    assert here.HasField("error")
    assert there.response.allowed


async def test_only_this_service_writes_the_policy_of_a_course(sqlite_service: Service) -> None:
    await written(sqlite_service, COURSE)
    activation = pb.PolicyActivation(scope=ALGEBRA, number=1, digest="x")
    mutation = touch(policy_activation=activation)
    error = await refused(sqlite_service.directory.Write(dpb.WriteRequest(mutations=[mutation])))
    assert "which only PolicyService writes; call that instead" in str(error.details())


async def test_what_is_active_is_listed_in_pages_with_the_platform_last(service: Service) -> None:
    await written(service, COURSE, *OTHER)
    request, found = ppb.ReadPolicyActivationsRequest(page_size=1), []
    await applied_in(service, CLOSES)
    await applied_in(service, CLOSES.replace("algebra", "chemistry"), course_id="chemistry")
    published = await applied_in(service, course_id="chemistry")
    while True:
        page = await service.policy.ReadPolicyActivations(request)
        assert page.read_at == published.written_at
        found += [(each.scope.course_id, each.number) for each in page.policy_activations]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == [("algebra", 1), ("chemistry", 2), ("", 1)]
    assert page.policy_activations[0].scope.platform
