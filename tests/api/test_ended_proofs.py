"""What a server proves before it publishes a policy ends with the call that is to publish it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pkgutil import resolve_name
from typing import Any

import grpc
import pytest

from authz.domain.entities import Course, PolicyActivation, PolicyVersion
from authz.domain.files import FORMAT, files_digest
from authz.domain.ids import course_scope
from authz.domain.mutations import Mutation, Operation
from authz.policy.course import course_files
from authz.v1 import policy_pb2 as ppb
from tests.api.test_policies import messages
from tests.api.test_rights import campus, publish
from tests.policies import SHIPPED, with_rows
from tests.service import Service, in_process, serve
from tests.serving import needs_envoy
from tests.store.directory import open_with, write

COURSES = 20
ONE_WITH_ITSELF = ppb.DiffPolicyVersionsRequest(before_number=1, after_number=1)


def write_policies(url: str) -> None:
    """Store that many courses, each with a policy of its own."""
    files = course_files("# why\n")
    digest = files_digest(files)
    store = open_with(url)
    for number in range(COURSES):
        scope = course_scope(f"c{number}")
        version = PolicyVersion(scope=scope, number=1, digest=digest, files=files, format=FORMAT)
        activation = PolicyActivation(scope=scope, number=1, digest=digest)
        write(store, *(Mutation(Operation.CREATE, each) for each in (Course(scope.id), version, activation)))
    store.close()


STEPS = [
    "authz.policy.prove:find_facts",
    "authz.engine.policy_cases:_problem",
    "authz.policy.course:CourseReview.add",
]
"""What the server calls for each step of a proof, of the tests of a policy and of a review."""


@in_process
@pytest.mark.parametrize("ends_by", ["its client", "its deadline"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_proof_ends_with_its_call(
    sqlite_service: Service, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, step: str, ends_by: str
) -> None:
    await asyncio.to_thread(write_policies, sqlite_url)
    begun, may_continue, steps = threading.Event(), threading.Event(), list[object]()
    called = resolve_name(step)

    def slowly(*given: Any) -> Any:
        steps.append(given)
        begun.set()
        assert may_continue.wait(60)
        return called(*given)

    monkeypatch.setattr(step.replace(":", "."), slowly)
    monkeypatch.setattr("authz.engine.course_review._SLICE_S", 0)
    request = ppb.ApplyPolicyRequest(files=messages(SHIPPED))
    async with sqlite_service.logged() as lines:
        applied = sqlite_service.policy.ApplyPolicy(request, timeout=60 if ends_by == "its client" else 2)
        assert await asyncio.to_thread(begun.wait, 20)
        if ends_by == "its client":
            applied.cancel()
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await applied
        async with asyncio.timeout(20):
            while not any(line.get("code") == "CANCELLED" for line in lines):  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.01)
    may_continue.set()
    # In the thread that computes, this waits for what is left of the proof.
    await sqlite_service.policy.DiffPolicyVersions(ONE_WITH_ITSELF)
    assert len(steps) == 1


@in_process
async def test_what_a_person_may_publish_is_compared_for_no_longer_than_the_call(
    sqlite_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await campus(sqlite_service)
    begun = threading.Event()

    def compare_for_long(*_: Any, require_not_cancelled: Callable[[], object], **__: Any) -> Iterator[str]:
        begun.set()
        end_at = time.monotonic() + 30
        while time.monotonic() < end_at:
            require_not_cancelled()
        yield from ()

    monkeypatch.setattr("authz.engine.rights.excesses", compare_for_long)
    applied = asyncio.ensure_future(publish(sqlite_service, with_rows("# why"), "root"))
    assert await asyncio.to_thread(begun.wait, 20)
    applied.cancel()
    # In the thread that computes, this waits for the end of the comparison.
    await sqlite_service.policy.DiffPolicyVersions(ONE_WITH_ITSELF, timeout=20)


@needs_envoy
async def test_a_proof_over_envoy_ends_when_its_client_leaves(sqlite_url: str) -> None:
    roles = (f"role, r{number}, course, 5, no," for number in range(60))
    denies = (
        f"p, *, *, *, read, {fact} & {gate}, deny"
        for fact in ("own", "shared_view", "shared_edit", "published", "attending")
        for gate in ("session_live", "locked", "course_archived")
    )
    takes_seconds = ppb.ValidatePolicyRequest(files=messages(with_rows(*roles, *denies)))
    async with serve(sqlite_url, transport="envoy") as service, service.logged() as lines:
        validated = service.policy.ValidatePolicy(takes_seconds)
        await asyncio.sleep(1)
        validated.cancel()
        await service.policy.DiffPolicyVersions(ONE_WITH_ITSELF)
    codes = [line["code"] for line in lines if line.get("method", "").endswith("/ValidatePolicy")]
    assert codes == ["CANCELLED"]
