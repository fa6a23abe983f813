"""What waits for others is dropped when the person for whom it is made loses the right to it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from authz.domain.entities import MembershipKey
from authz.domain.ids import PLATFORM, ResourceRef, course_scope, parse_subject
from authz.domain.mutations import Mutation, Operation, WriteRequest
from authz.domain.origin import Origin
from authz.domain.tokens import ConsistencyToken
from authz.engine.consistency import ConsistencyGate
from authz.engine.policy_cases import prove_and_test
from authz.store.directory import SqlDirectory
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import policy_pb2 as plpb
from authz.v1 import privacy_pb2 as ppb
from tests.api.test_api import delete, touch
from tests.api.test_policies import messages, refused
from tests.api.test_rights import ALGEBRA, acting_for, campus, given, publish, write
from tests.callers import directory_of, grant
from tests.policies import with_rows
from tests.service import Service, in_process, reason_of

TESS = MembershipKey(parse_subject("user:tess"), course_scope("algebra"), "teacher")
STU_LEAVES = dpb.RemoveMemberRequest(
    subject=pb.Subject(type=pb.SUBJECT_TYPE_USER, id="stu"), scope=ALGEBRA, reason="left"
)
ROOT = MembershipKey(parse_subject("user:root"), PLATFORM, "platform_admin")
CALLS: dict[str, Callable[[Service], Awaitable[Any]]] = {
    "write": lambda service: write(service, given("new", ALGEBRA, "student"), person="tess"),
    "removal": lambda service: service.directory.RemoveMember(STU_LEAVES, metadata=acting_for("tess")),
}


def take_away(url: str, key: MembershipKey) -> None:
    """Delete a membership by another process."""
    with directory_of(url) as directory:
        directory.write(WriteRequest(mutations=(Mutation(Operation.DELETE, key),), origin=Origin("test")))


class Held:
    """Holds a function in the first thread that calls it, until it may go on."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self._function = function

    def __call__(self, *given: Any) -> Any:
        if not self.begun.is_set():
            self.begun.set()
            assert self.may_end.wait(60)
        return self._function(*given)


def held_writes(monkeypatch: pytest.MonkeyPatch) -> Held:
    """Holds the first group of writes, so that those that come later wait."""
    held = Held(SqlDirectory.write_group)

    def slowly(self: SqlDirectory, requests: Any) -> Any:
        return held(self, requests)

    monkeypatch.setattr(SqlDirectory, "write_group", slowly)
    return held


async def members(service: Service) -> set[str]:
    request = dpb.ReadMembershipsRequest(scope=ALGEBRA)
    found = await service.directory.ReadMemberships(request)
    return {each.subject.id for each in found.memberships}


@in_process
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_what_waits_is_dropped_when_its_person_loses_the_right(
    sqlite_service: Service,
    sqlite_url: str,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[Service], Awaitable[Any]],
) -> None:
    await campus(sqlite_service)
    before = await members(sqlite_service)
    held = held_writes(monkeypatch)
    first = asyncio.ensure_future(write(sqlite_service, given("ann", ALGEBRA, "student")))
    await asyncio.to_thread(held.begun.wait, 20)
    waiting = asyncio.ensure_future(call(sqlite_service))
    await asyncio.sleep(0.2)
    await asyncio.to_thread(take_away, sqlite_url, TESS)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(waiting, 20)
    assert reason_of(caught.value) == "PERMISSION_MISSING"
    held.may_end.set()
    await first
    assert await members(sqlite_service) == before - {"tess"} | {"ann"}


@in_process
async def test_a_deletion_that_is_done_while_its_repetition_waits_is_answered_as_done(
    sqlite_service: Service, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await campus(sqlite_service)
    diary = pb.Resource(type="notebook", id="nb", scope=ALGEBRA, owner=STU_LEAVES.subject)
    await write(sqlite_service, touch(resource=diary))
    held = held_writes(monkeypatch)
    first = asyncio.ensure_future(write(sqlite_service, given("ann", ALGEBRA, "student")))
    await asyncio.to_thread(held.begun.wait, 20)
    request = dpb.WriteRequest(mutations=[delete(resource=diary)], idempotency_key="k")
    repeated = sqlite_service.directory.Write(request, metadata=acting_for("stu"))
    await asyncio.sleep(0.2)

    def write_at_another_server() -> ConsistencyToken:
        deletion = Mutation(Operation.DELETE, ResourceRef("notebook", "nb"))
        origin = Origin("unauthenticated for user:stu")
        with directory_of(sqlite_url) as directory:
            return directory.write(WriteRequest(mutations=(deletion,), idempotency_key="k", origin=origin))

    done = await asyncio.to_thread(write_at_another_server)
    assert (await asyncio.wait_for(repeated, 20)).revision == done.revision
    held.may_end.set()
    await first


@in_process
async def test_a_policy_is_not_published_when_its_person_loses_the_right_during_the_proof(
    sqlite_service: Service, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.api.recheck.INTERVAL_S", 0)
    await campus(sqlite_service)
    grant(sqlite_url, {"user:other": "platform_admin"})  # since the last administrator stays
    held = Held(prove_and_test)
    monkeypatch.setattr("authz.engine.publish.prove_and_test", held)
    request = plpb.ApplyPolicyRequest(files=messages(with_rows("# reviewed")))
    applied = sqlite_service.policy.ApplyPolicy(request, metadata=acting_for("root"), timeout=60)
    await asyncio.to_thread(held.begun.wait, 20)
    await asyncio.to_thread(take_away, sqlite_url, ROOT)
    held.may_end.set()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await applied
    assert reason_of(caught.value) == "PERMISSION_MISSING"
    listed = await sqlite_service.policy.ReadPolicyVersions(plpb.ReadPolicyVersionsRequest())
    assert [each.number for each in listed.policy_versions] == [1]


@in_process
@pytest.mark.parametrize(
    ("call", "right"),
    [
        *((call, TESS) for call in CALLS.values()),
        (lambda service: publish(service, with_rows("# reviewed"), "root"), ROOT),
    ],
    ids=[*CALLS, "publication"],
)
async def test_what_is_done_is_answered_as_done_though_its_person_has_lost_the_right_since(
    sqlite_service: Service,
    sqlite_url: str,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[Service], Awaitable[Any]],
    right: MembershipKey,
) -> None:
    monkeypatch.setattr("authz.api.recheck.INTERVAL_S", 0)
    await campus(sqlite_service)
    grant(sqlite_url, {"user:other": "platform_admin"})  # since the last administrator stays
    wait = ConsistencyGate.wait_until_replicated

    async def wait_for_long(self: ConsistencyGate, state: ConsistencyToken) -> bool:
        await asyncio.to_thread(take_away, sqlite_url, right)
        await asyncio.sleep(0.1)
        return await wait(self, state)

    monkeypatch.setattr(ConsistencyGate, "wait_until_replicated", wait_for_long)
    assert (await call(sqlite_service)).replicated


@in_process
async def test_who_is_erased_by_themselves_hears_that_it_is_done(
    sqlite_service: Service, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.api.recheck.INTERVAL_S", 0)
    await campus(sqlite_service)
    grant(sqlite_url, {"user:other": "platform_admin"})  # since the last administrator stays
    root = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="root")
    erasure = ppb.EraseSubjectRequest(subject=root, reason="17", orphan_resources=True)
    await sqlite_service.privacy.EraseSubject(erasure, metadata=acting_for("root"))
    repeated = sqlite_service.privacy.EraseSubject(erasure, metadata=acting_for("root"))
    assert reason_of(await refused(repeated)) == "PERMISSION_MISSING"
