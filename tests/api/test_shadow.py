"""A candidate beside the active policy, from the outside: on every server, and in no answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from authz.domain.decisions import Question
from authz.domain.shadow import ShadowTally
from authz.engine.shadow_comparison import ShadowComparison
from authz.store.shadows import Shadows
from authz.v1 import authorization_pb2 as apb
from authz.v1 import policy_pb2 as ppb
from tests.api.test_api import COURSE, MATERIAL, MAYA, STUDENT, question, written
from tests.api.test_drafts import WITHOUT_TESTS, cell, created, edited
from tests.api.test_policies import applied, refused
from tests.api.test_rights import acting_for, campus
from tests.api.test_scheduled import HOUR_US, stamp, until
from tests.policies import with_rows
from tests.service import START, Service, in_process, reason_of, serve

CLOSED = cell("student", "material", "read", when=())
"""Students read no materials."""


@pytest.fixture(autouse=True)
def frequent_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of this process look for shadows, and save counts, many times a second."""
    monkeypatch.setattr("authz.engine.shadow_runner._INTERVAL_S", 0.05)
    monkeypatch.setattr("authz.engine.shadow_runner._SAVE_AFTER_S", 0.1)


async def started(service: Service, *, metadata: Any = (), **fields: Any) -> ppb.PolicyShadow:
    request = ppb.StartPolicyShadowRequest(**{"sample_rate": 1.0, **fields})
    shadow: ppb.PolicyShadow = (await service.policy.StartPolicyShadow(request, metadata=metadata)).shadow
    return shadow


async def shown(service: Service, course_id: str = "") -> ppb.PolicyShadow:
    request = ppb.ReadPolicyShadowRequest(course_id=course_id)
    shadow: ppb.PolicyShadow = (await service.policy.ReadPolicyShadow(request)).shadow
    return shadow


async def stopped(service: Service, course_id: str = "") -> ppb.PolicyShadow:
    request = ppb.StopPolicyShadowRequest(course_id=course_id)
    shadow: ppb.PolicyShadow = (await service.policy.StopPolicyShadow(request)).shadow
    return shadow


async def draft_of(service: Service) -> None:
    await written(service, COURSE, STUDENT, MATERIAL)
    await edited(service, await created(service), CLOSED, WITHOUT_TESTS)


def compared(service: Service, *asked: Service, course_id: str = "") -> Callable[[], Awaitable[bool]]:
    """Whether the counts that a server shows have grown, after a check at each of the others."""
    known: list[int] = []

    async def has_grown() -> bool:
        for each in asked:
            assert (await each.authorization.Check(question())).allowed
        found = (await shown(service, course_id)).compared
        known.append(found)
        return found > known[0]

    return has_grown


async def test_what_a_draft_would_decide_differently_is_counted_on_all_servers_and_changes_no_answer(
    store_url: str,
) -> None:
    async with serve(store_url) as one, serve(store_url) as other:
        await draft_of(one)
        # Time enough for every comparison, however slow the machine is.
        shadow = await started(one, draft_id="mine", author="ada", budget_us=1_000_000)
        assert (shadow.draft_id, shadow.against_number, shadow.author) == ("mine", 1, "ada")
        assert shadow.state == ppb.POLICY_SHADOW_STATE_RUNNING
        assert shadow.ends_at == stamp(START + HOUR_US)
        await until(compared(one, one))
        await until(compared(one, other))
        batch = apb.BatchCheckRequest(items=[question(), question("update")])
        results = (await other.authorization.BatchCheck(batch)).results
        assert [each.response.allowed for each in results] == [True, False]
        offered = apb.ListActionsRequest(subject=MAYA, resource=question().resource)
        actions = (await one.authorization.ListActions(offered)).actions
        assert [each.action for each in actions if each.allowed] == ["read"]
        ended = await stopped(other)
        assert ended.state == ppb.POLICY_SHADOW_STATE_ENDED
        found = await shown(one)
    # Servers that stop add what they have not added yet.
    async with serve(store_url) as third:
        last = await shown(third)
    assert last.compared >= found.compared
    assert last.skipped == 0
    assert last.differing == last.compared - 5, "what maya may not do under either"
    (counted,) = last.cells
    assert (list(counted.roles), counted.type, counted.action, counted.gains, counted.checks) == (
        ["student"],
        "material",
        "read",
        False,
        last.differing,
    )
    example = last.examples[0]
    assert (example.subject.id, example.resource.id, example.resource.scope.course_id) == (
        "maya",
        "m-1",
        "algebra",
    )
    assert (example.active.allowed, example.active.reason) == (True, apb.REASON_ROLE_GRANT)
    assert (example.candidate.allowed, example.candidate.reason) == (False, apb.REASON_NO_RULE)
    assert last.elapsed_us > 0


async def test_a_shadow_ends_at_its_time_or_when_another_version_is_active(sqlite_service: Service) -> None:
    service = sqlite_service
    await draft_of(service)
    await started(service, draft_id="mine", ends_at=stamp(START + 2 * HOUR_US))
    error = await refused(started(service, draft_id="mine"))
    assert (error.code(), "stop it first" in str(error.details())) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        True,
    )
    await applied(service, with_rows("p, teaching_assistant, *, material, publish, , allow"))
    assert (await shown(service)).state == ppb.POLICY_SHADOW_STATE_SUPERSEDED
    service.now += 2 * HOUR_US
    assert (await shown(service)).state == ppb.POLICY_SHADOW_STATE_ENDED
    error = await refused(stopped(service))
    assert "nothing to stop" in str(error.details())
    again = await started(service, number=1)
    assert (again.number, again.against_number, again.state) == (1, 2, ppb.POLICY_SHADOW_STATE_RUNNING)


async def test_bad_requests_for_a_shadow_are_told(sqlite_service: Service) -> None:
    service = sqlite_service
    row = ppb.PolicyEdit(add_row="p, grader, *, material, read, , allow")
    await edited(service, await created(service), row)
    assert not (await service.policy.ReadPolicyShadow(ppb.ReadPolicyShadowRequest())).HasField("shadow")
    for call, reason, says in (
        (started(service), "MISSING_FIELD", "candidate"),
        (started(service, number=0), "MALFORMED_FIELD", "number of a version"),
        (started(service, number=9), "VERSION_NOT_FOUND", "there is no"),
        (started(service, draft_id="other"), "DRAFT_NOT_FOUND", "`other`"),
        (started(service, draft_id="mine"), "POLICY_INVALID", "unknown role `grader`"),
        (started(service, number=1, sample_rate=1.5), "MALFORMED_FIELD", "sample_rate is 1.5"),
        (started(service, number=1, sample_rate=float("nan")), "MALFORMED_FIELD", "sample_rate is nan"),
        (started(service, number=1, budget_us=-1), "MALFORMED_FIELD", "budget_us is -1"),
        (started(service, number=1, ends_at=stamp(START)), "MALFORMED_FIELD", "within the next 30 days"),
        (
            started(service, number=1, ends_at=stamp(START + 31 * 24 * HOUR_US)),
            "MALFORMED_FIELD",
            "within the next 30 days",
        ),
        (stopped(service), "PRECONDITION_FAILED", "nothing to stop"),
    ):
        error = await refused(call)
        assert (reason_of(error), says in str(error.details())) == (reason, True), error.details()


async def test_a_candidate_that_is_equal_to_the_active_version_is_refused(sqlite_service: Service) -> None:
    service = sqlite_service
    await written(service, COURSE)
    await created(service)
    await created(service, course_id="algebra")
    for candidate in ({"number": 1}, {"draft_id": "mine"}, {"draft_id": "mine", "course_id": "algebra"}):
        error = await refused(started(service, **candidate))
        assert reason_of(error) == "PRECONDITION_FAILED"
        assert "the candidate is equal to the active version" in str(error.details())
    await applied(service, with_rows("p, teaching_assistant, *, material, publish, , allow"))
    await started(service, number=1)


async def test_a_person_needs_the_right_to_edit_the_policy(sqlite_service: Service) -> None:
    service = sqlite_service
    await campus(service)
    error = await refused(started(service, number=1, metadata=acting_for("stu")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    await edited(service, await created(service), CLOSED)
    await started(service, draft_id="mine", metadata=acting_for("root"))
    read = ppb.ReadPolicyShadowRequest()
    error = await refused(service.policy.ReadPolicyShadow(read, metadata=acting_for("stu")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    await service.policy.ReadPolicyShadow(read, metadata=acting_for("root"))
    request = ppb.StopPolicyShadowRequest()
    error = await refused(service.policy.StopPolicyShadow(request, metadata=acting_for("stu")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    await service.policy.StopPolicyShadow(request, metadata=acting_for("root"))


APART = "p, student, course:algebra, material, read, , deny"


async def course_draft_of(service: Service, row: str = APART) -> None:
    await written(service, COURSE, STUDENT, MATERIAL)
    draft = await created(service, course_id="algebra")
    await edited(service, draft, ppb.PolicyEdit(add_row=row), course_id="algebra")


async def test_a_draft_of_a_course_is_compared_on_all_servers_beside_a_shadow_of_the_platform(
    sqlite_url: str,
) -> None:
    async with serve(sqlite_url) as one, serve(sqlite_url) as other:
        await course_draft_of(one)
        await applied(one, with_rows("# decides the same"))
        platform = await started(one, number=1, budget_us=1_000_000)
        shadow = await started(one, draft_id="mine", course_id="algebra", budget_us=1_000_000)
        assert (shadow.course_id, shadow.draft_id) == ("algebra", "mine")
        assert (shadow.against_number, shadow.against_course_number) == (2, 0)
        await until(compared(one, one, course_id="algebra"))
        await until(compared(one, other, course_id="algebra"))
        await until(compared(one, one))
        assert (await stopped(other, "algebra")).state == ppb.POLICY_SHADOW_STATE_ENDED
        assert (await shown(one)).state == platform.state == ppb.POLICY_SHADOW_STATE_RUNNING
    # Servers that stop add what they have not added yet.
    async with serve(sqlite_url) as third:
        last, beside = await shown(third, "algebra"), await shown(third)
    assert (beside.differing, beside.course_id) == (0, "")
    assert last.differing == last.compared > 0
    assert [(list(each.roles), each.action, each.gains) for each in last.cells] == [
        (["student"], "read", False)
    ]
    assert last.examples[0].candidate.rule.scope == "course:algebra"


async def test_a_shadow_of_a_course_is_superseded_by_a_version_of_the_course_or_of_the_platform(
    sqlite_service: Service,
) -> None:
    service = sqlite_service
    await course_draft_of(service)
    of_platform = with_rows("p, teaching_assistant, *, material, publish, , allow")
    for course_id, files in (("algebra", {"course.csv": f"# why\n{APART}\n"}), ("", of_platform)):
        shadow = await started(service, draft_id="mine", course_id="algebra")
        assert shadow.state == (await shown(service, "algebra")).state == ppb.POLICY_SHADOW_STATE_RUNNING
        await applied(service, files, course_id=course_id)
        assert (await shown(service, "algebra")).state == ppb.POLICY_SHADOW_STATE_SUPERSEDED
        await stopped(service, "algebra")
    assert shadow.against_course_number == 1


async def test_a_candidate_of_a_course_is_held_to_the_locks_of_the_platform(sqlite_service: Service) -> None:
    service = sqlite_service
    await course_draft_of(service, "p, student, course:algebra, course, archive, , allow")
    error = await refused(started(service, draft_id="mine", course_id="algebra"))
    assert (reason_of(error), "which the platform locks" in str(error.details())) == ("POLICY_INVALID", True)
    error = await refused(started(service, draft_id="mine"))
    assert reason_of(error) == "DRAFT_NOT_FOUND"
    error = await refused(started(service, number=1, course_id="algebra"))
    assert reason_of(error) == "VERSION_NOT_FOUND"


async def test_the_right_to_edit_the_policy_of_a_course_suffices_for_its_shadow_alone(
    sqlite_service: Service,
) -> None:
    service = sqlite_service
    await campus(service)
    row = ppb.PolicyEdit(add_row="p, student, course:algebra, material, read, , deny")
    await edited(service, await created(service, course_id="algebra"), row, course_id="algebra")
    for person in ("stu", "tess"):
        error = await refused(
            started(service, draft_id="mine", course_id="algebra", metadata=acting_for(person))
        )
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    await started(service, draft_id="mine", course_id="algebra", metadata=acting_for("olga"))
    error = await refused(started(service, number=1, metadata=acting_for("olga")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    read = ppb.ReadPolicyShadowRequest(course_id="algebra")
    error = await refused(service.policy.ReadPolicyShadow(read, metadata=acting_for("tess")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    await service.policy.ReadPolicyShadow(read, metadata=acting_for("olga"))
    request = ppb.StopPolicyShadowRequest(course_id="algebra")
    error = await refused(service.policy.StopPolicyShadow(request, metadata=acting_for("stu")))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    await service.policy.StopPolicyShadow(request, metadata=acting_for("olga"))


@in_process
async def test_a_stop_during_a_save_does_not_count_twice(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Question] = []
    saving, stopping = threading.Event(), threading.Event()
    compare, add = ShadowComparison.compare, Shadows.add

    def counted(self: ShadowComparison, checker: Any, snapshot: Any, question: Question, *of: Any) -> None:
        asked.append(question)
        compare(self, checker, snapshot, question, *of)

    def slow(self: Shadows, shadow_id: str, tally: ShadowTally) -> None:
        add(self, shadow_id, tally)
        saving.set()
        assert stopping.wait(60)

    async def is_saving() -> bool:
        assert (await service.authorization.Check(question())).allowed
        return saving.is_set()

    monkeypatch.setattr(ShadowComparison, "compare", counted)
    monkeypatch.setattr(Shadows, "add", slow)
    async with serve(sqlite_url) as service:
        await draft_of(service)
        await started(service, draft_id="mine", budget_us=1_000_000)
        await until(is_saving)
        # The save ends once the server has begun to stop.
        asyncio.get_running_loop().call_later(1, stopping.set)
    async with serve(sqlite_url) as again:
        assert (await shown(again)).compared == len(asked)
