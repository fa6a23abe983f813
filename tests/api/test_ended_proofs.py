"""What a server proves before it publishes a policy ends with the call that is to publish it."""

from __future__ import annotations

import asyncio
import threading
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
from tests.policies import SHIPPED
from tests.service import Service, in_process
from tests.store.directory import open_with, write

COURSES = 20


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
    await sqlite_service.policy.DiffPolicyVersions(
        ppb.DiffPolicyVersionsRequest(before_number=1, after_number=1)
    )
    assert len(steps) == 1
