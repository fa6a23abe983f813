"""Versions of the policy, from the outside: published whole or not at all, and in force on the next check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
import msgspec
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from authz.domain.entities import PolicyActivation, PolicyVersion
from authz.domain.errors import FailedPreconditionError
from authz.domain.files import files_digest, files_text
from authz.domain.ids import PLATFORM
from authz.domain.mutations import Mutation, Operation
from authz.policy.certificate import Certificate, check_certificate
from authz.policy.versions import prove_files
from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import policy_pb2 as ppb
from authz.v1 import watch_pb2 as wpb
from tests.api.test_api import ALGEBRA, COURSE, MATERIAL, MAYA, STUDENT, question, touch, written
from tests.policies import CLOSED, SHIPPED, with_rows
from tests.service import Service, reason_of
from tests.store.directory import open_with, write


def messages(files: Mapping[str, str]) -> list[pb.PolicyFile]:
    return [pb.PolicyFile(name=name, text=text) for name, text in files.items()]


async def applied(service: Service, files: Mapping[str, str], **fields: Any) -> ppb.ApplyPolicyResponse:
    request = ppb.ApplyPolicyRequest(files=messages(files), **fields)
    response: ppb.ApplyPolicyResponse = await service.policy.ApplyPolicy(request)
    return response


async def active(service: Service) -> ppb.ReadPolicyVersionResponse:
    response: ppb.ReadPolicyVersionResponse = await service.policy.ReadPolicyVersion(
        ppb.ReadPolicyVersionRequest()
    )
    return response


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_a_new_database_has_the_shipped_policy_as_its_first_version(service: Service) -> None:
    found = await active(service)
    assert found.active_number == found.policy_version.number == 1
    assert {file.name: file.text for file in found.policy_version.files} == SHIPPED
    await written(service, COURSE, STUDENT, MATERIAL)
    answer = await service.authorization.Check(question())
    assert (answer.allowed, answer.policy_version) == (True, "1")


async def test_a_published_version_decides_the_next_check_with_its_token(service: Service) -> None:
    await written(service, COURSE, STUDENT, MATERIAL)
    published = await applied(service, CLOSED, author="ada", reason="close")
    assert (published.changed, published.active.number, published.active.author) == (True, 2, "ada")
    fresh = pb.Consistency(at_least_as_fresh=published.written_at)
    answer = await service.authorization.Check(question(consistency=fresh))
    assert (answer.allowed, answer.reason, answer.policy_version) == (False, apb.REASON_EXPLICIT_DENY, "2")
    batch = apb.BatchCheckRequest(items=[question(), question("update")])
    results = (await service.authorization.BatchCheck(batch)).results
    assert {result.response.policy_version for result in results} == {"2"}
    offered = await service.authorization.ListActions(
        apb.ListActionsRequest(subject=MAYA, resource=question().resource)
    )
    assert offered.policy_version == "2"


async def test_equal_files_change_nothing_in_whatever_order_they_come(sqlite_service: Service) -> None:
    reversed_files = dict(reversed(SHIPPED.items()))
    again = await applied(sqlite_service, reversed_files, reason="again")
    assert (again.changed, again.active.number) == (False, 1)
    listed = await sqlite_service.policy.ReadPolicyVersions(ppb.ReadPolicyVersionsRequest())
    assert [version.number for version in listed.policy_versions] == [1]


async def test_a_rollback_is_a_new_version_equal_to_an_old_one(sqlite_service: Service) -> None:
    await written(sqlite_service, COURSE, STUDENT, MATERIAL)
    await applied(sqlite_service, CLOSED)
    assert not (await sqlite_service.authorization.Check(question())).allowed
    returned = await sqlite_service.policy.RollBackPolicy(
        ppb.RollBackPolicyRequest(number=1, reason="too strict")
    )
    assert (returned.changed, returned.active.number) == (True, 3)
    answer = await sqlite_service.authorization.Check(question())
    assert (answer.allowed, answer.policy_version) == (True, "3")
    first, second, third = (
        await sqlite_service.policy.ReadPolicyVersions(ppb.ReadPolicyVersionsRequest())
    ).policy_versions
    assert first.digest == third.digest != second.digest
    assert third.reason == "too strict"
    again = await sqlite_service.policy.RollBackPolicy(ppb.RollBackPolicyRequest(number=1))
    assert (again.changed, again.active.number) == (False, 3)


async def test_versions_are_listed_in_pages_and_read_by_number(sqlite_service: Service) -> None:
    for number in range(3):
        await applied(sqlite_service, with_rows(f"# {number}"))
    request, found = ppb.ReadPolicyVersionsRequest(page_size=3), []
    while True:
        page = await sqlite_service.policy.ReadPolicyVersions(request)
        found += [version.number for version in page.policy_versions]
        assert not any(version.files for version in page.policy_versions)
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert found == [1, 2, 3, 4]
    old = await sqlite_service.policy.ReadPolicyVersion(ppb.ReadPolicyVersionRequest(number=2))
    assert (old.policy_version.number, old.active_number) == (2, 4)
    assert {file.name: file.text for file in old.policy_version.files} == with_rows("# 0")
    error = await refused(sqlite_service.policy.ReadPolicyVersion(ppb.ReadPolicyVersionRequest(number=9)))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.NOT_FOUND, "VERSION_NOT_FOUND")
    error = await refused(sqlite_service.policy.RollBackPolicy(ppb.RollBackPolicyRequest(number=9)))
    assert reason_of(error) == "VERSION_NOT_FOUND"


async def test_a_change_of_a_version_that_is_no_longer_active_is_refused(service: Service) -> None:
    await applied(service, CLOSED, expected_active_number=1)
    error = await refused(applied(service, SHIPPED, expected_active_number=1))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "PRECONDITION_FAILED")
    assert "the active version is 2, not 1" in str(error.details())
    assert (await active(service)).active_number == 2


async def test_a_version_is_read_with_a_proof_that_the_checker_accepts_for_it_alone(
    sqlite_service: Service,
) -> None:
    await applied(sqlite_service, CLOSED)
    request = ppb.ReadPolicyVersionRequest(number=2, include_certificate=True)
    found = (await sqlite_service.policy.ReadPolicyVersion(request)).certificate
    certificate = msgspec.json.decode(found.json, type=Certificate)
    proved = prove_files(CLOSED)
    check_certificate(certificate, proved.policy, proved.invariants)
    assert (found.policy_digest, found.obligations) == (certificate.policy, certificate.obligations)
    assert found.invariants == len(proved.invariants) > 0
    other = prove_files(SHIPPED)
    with pytest.raises(FailedPreconditionError, match="is of another policy"):
        check_certificate(certificate, other.policy, other.invariants)
    assert not (await active(sqlite_service)).HasField("certificate")


async def test_two_versions_are_compared_by_number_or_by_their_files(sqlite_service: Service) -> None:
    await applied(sqlite_service, CLOSED)
    by_number = await sqlite_service.policy.DiffPolicyVersions(ppb.DiffPolicyVersionsRequest(before_number=1))
    by_files = await sqlite_service.policy.DiffPolicyVersions(
        ppb.DiffPolicyVersionsRequest(before_files=messages(SHIPPED), after_files=messages(CLOSED))
    )
    assert by_number == by_files
    (student,) = (cell for cell in by_number.cells if cell.role == "student")
    assert (student.type, student.action, student.course_id) == ("material", "read", "")
    assert list(student.losses) == ["published & !for_ai_response"]
    assert list(student.sentences) == ["`student` loses read on material, when published & !for_ai_response"]
    same = await sqlite_service.policy.DiffPolicyVersions(ppb.DiffPolicyVersionsRequest(before_number=2))
    assert not same.cells
    assert not same.declarations
    renamed = with_rows("role, grader, course, 25, no,")
    other = await sqlite_service.policy.DiffPolicyVersions(
        ppb.DiffPolicyVersionsRequest(before_number=1, after_files=messages(renamed))
    )
    role, *tests = other.declarations
    assert role == "role `grader` is new"
    assert [each.split(": ")[0] for each in tests] == ["tests/callers.toml", "tests/course.toml"]


async def test_what_cannot_be_compared_is_told(sqlite_service: Service) -> None:
    async def error_of(**sides: Any) -> tuple[grpc.StatusCode, str]:
        error = await refused(
            sqlite_service.policy.DiffPolicyVersions(ppb.DiffPolicyVersionsRequest(**sides))
        )
        return error.code(), str(error.details())

    faulty = messages(with_rows("p, studnt, *, notebook, read, own, allow"))
    code, says = await error_of(after_files=faulty)
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "did you mean `student`?" in says
    code, says = await error_of(before_number=7)
    assert (code, "there is no version 7" in says) == (grpc.StatusCode.NOT_FOUND, True)
    code, says = await error_of(before_number=1, before_files=messages(SHIPPED))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "send one of the two" in says
    code, says = await error_of(after_number=-1)
    assert (code, "after_number is -1" in says) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_a_write_is_validated_by_the_version_that_is_active(service: Service) -> None:
    grader = touch(membership=pb.Membership(subject=MAYA, scope=ALGEBRA, role="grader"))
    await written(service, COURSE)
    error = await refused(service.directory.Write(dpb.WriteRequest(mutations=[grader])))
    assert reason_of(error) == "UNKNOWN_ROLE"
    await applied(service, with_rows("role, grader, course, 25, no,"))
    await written(service, grader)
    await applied(service, SHIPPED)
    other = touch(
        membership=pb.Membership(
            subject=pb.Subject(type=pb.SUBJECT_TYPE_USER, id="omar"), scope=ALGEBRA, role="grader"
        )
    )
    error = await refused(service.directory.Write(dpb.WriteRequest(mutations=[other])))
    assert reason_of(error) == "UNKNOWN_ROLE"


async def test_only_this_service_writes_versions(sqlite_service: Service) -> None:
    version = pb.PolicyVersion(
        scope=pb.Scope(platform=pb.Platform()), number=2, digest="x", files=messages(SHIPPED), format=1
    )
    activation = pb.PolicyActivation(scope=pb.Scope(platform=pb.Platform()), number=2, digest="x")
    for mutation in (touch(policy_version=version), touch(policy_activation=activation)):
        error = await refused(sqlite_service.directory.Write(dpb.WriteRequest(mutations=[mutation])))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "which only PolicyService writes; call that instead" in str(error.details())
        report = await sqlite_service.directory.Import(iter([dpb.ImportRequest(mutations=[mutation])]))
        assert (report.written, report.failed) == (0, 1)
    assert (await active(sqlite_service)).active_number == 1


@pytest.mark.parametrize("scopes", [[], [ALGEBRA]], ids=["everything", "one course"])
async def test_a_watch_announces_an_activation_whatever_scopes_it_is_of(
    sqlite_service: Service, scopes: list[pb.Scope]
) -> None:
    await written(sqlite_service, COURSE)
    after = (await active(sqlite_service)).read_at
    published = await applied(sqlite_service, CLOSED)
    watch = sqlite_service.watch.Watch(wpb.WatchRequest(after=after, scopes=scopes))
    async for response in watch:
        if response.HasField("change"):
            break
    watch.cancel()
    assert response.change.written_at == published.written_at
    activation = response.change.mutations[-1].policy_activation
    assert (activation.number, activation.digest) == (2, published.active.digest)


@pytest.mark.parametrize("files", [CLOSED, SHIPPED], ids=["other-files", "files-compiled-before"])
async def test_a_version_of_a_later_release_stops_the_decisions(
    sqlite_service: Service, sqlite_url: str, files: dict[str, str]
) -> None:
    service = sqlite_service
    await written(service, COURSE, STUDENT, MATERIAL)
    assert (await service.authorization.Check(question())).allowed
    await publish_as_a_later_release(sqlite_url, files)
    latest = pb.Consistency(fully_consistent=True)
    offered = apb.ListActionsRequest(subject=MAYA, resource=question().resource)
    calls = (
        (service.authorization.Check, question(consistency=latest)),
        (service.authorization.BatchCheck, apb.BatchCheckRequest(items=[question()])),
        (service.authorization.ListActions, offered),
        (service.directory.Write, dpb.WriteRequest(mutations=[STUDENT])),
    )
    for method, request in calls:
        error = await refused(method(request))
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAVAILABLE, "POLICY_UNUSABLE")
        assert "has format 99" in str(error.details())
        assert "upgrade this server" in str(error.details())
    stub: Any = health_pb2_grpc.HealthStub(service.channel)
    async for status in stub.Watch(health_pb2.HealthCheckRequest(service="")):
        if status.status == health_pb2.HealthCheckResponse.NOT_SERVING:
            break
    # A version that this release can read ends it. Nothing says what the invariants of the other cover.
    error = await refused(applied(service, SHIPPED))
    assert reason_of(error) == "INVARIANTS_WEAKENED"
    assert "has format 99" in str(error.details())
    await applied(service, SHIPPED, weaken_invariants=True)
    answer = await service.authorization.Check(question(consistency=latest))
    assert (answer.allowed, answer.policy_version) == (True, "3")


async def publish_as_a_later_release(url: str, files: dict[str, str], *, format_: int = 99) -> None:
    """Activate a version 2, without validation: in a format that this release does not know, or as given."""
    store = open_with(url)
    text = files_text(files)
    digest = files_digest(text, format_)
    version = PolicyVersion(scope=PLATFORM, number=2, digest=digest, files=text, format=format_)
    activation = PolicyActivation(scope=PLATFORM, number=2, digest=digest)
    write(store, Mutation(Operation.CREATE, version), Mutation(Operation.TOUCH, activation))
    store.close()
