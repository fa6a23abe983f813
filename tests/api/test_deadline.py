"""A call that waits for a database which does not answer ends before its deadline, and says why."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from authz.access.permission import AllowAll
from authz.api.call import Call, CallKind, Method
from authz.api.deadline import before_deadline
from authz.api.methods import METHODS
from authz.api.pipeline import Pipeline
from authz.domain.consistency import MINIMIZE_LATENCY, Consistency, Freshness
from authz.domain.errors import NO_ANSWER, ErrorReason, UnavailableError, no_answer
from authz.v1 import authorization_pb2
from tests.api.in_process import Request

DECISIONS = authorization_pb2.DESCRIPTOR.services_by_name["AuthorizationService"]
FULLY = Consistency(Freshness.FULLY_CONSISTENT)
CHECK = Method("/authz.v1.AuthorizationService/Check", *METHODS["Check"])
READ = Method("/authz.v1.DirectoryService/ReadCourses", *METHODS["ReadCourses"])
TIMEOUT_S = 0.1


async def served(
    method: Method, *, answers: bool, waits_s: float = 60, consistency: Consistency = MINIMIZE_LATENCY
) -> Any:
    """What a call gives that waits for so long, while the database answers or does not: an answer or an
    error."""
    pipeline = Pipeline(
        authenticators=(),
        permissions=AllowAll(),
        concurrency_limits=dict.fromkeys(CallKind, 1),
        database_fault=lambda: "" if answers else NO_ANSWER,
    )
    deadline = time.monotonic() + TIMEOUT_S
    call = Call(method=method, transport=Request({}), deadline=deadline, consistency=consistency)

    async def run(_request: str, _call: Call) -> str:
        await asyncio.sleep(waits_s)
        return "answer"

    try:
        return await pipeline.serve(call, run, "question")
    except UnavailableError as error:
        return error


@pytest.mark.parametrize("method", ["Write", "ApplyPolicy", "EraseSubject", "RemoveMember"])
async def test_the_outcome_of_a_change_is_unknown(method: str) -> None:
    with capture_logs() as lines:
        error = await served(Method(f"/authz.v1.Any/{method}", *METHODS[method]), answers=False)
    assert error.reason is ErrorReason.STORE_UNAVAILABLE
    assert error.retry_after_s > 0
    assert "unknown whether it did: repeat a write with its `idempotency_key`" in error.message
    assert [(line["code"], line["reason"]) for line in lines] == [("UNAVAILABLE", "STORE_UNAVAILABLE")]


@pytest.mark.parametrize(("method", "consistency"), [(READ, MINIMIZE_LATENCY), (READ, FULLY), (CHECK, FULLY)])
async def test_a_read_changes_nothing(method: Method, consistency: Consistency) -> None:
    error = await served(method, answers=False, consistency=consistency)
    assert error.reason is ErrorReason.STORE_UNAVAILABLE
    assert error.message == "the database does not answer; try again later"


@pytest.mark.parametrize(
    ("method", "consistency", "answers"),
    [(READ, FULLY, True), (CHECK, FULLY, True), (CHECK, MINIMIZE_LATENCY, False)],
)
async def test_only_a_database_that_does_not_answer_ends_a_call_that_needs_it(
    method: Method, consistency: Consistency, answers: bool
) -> None:
    given = await served(method, answers=answers, waits_s=2 * TIMEOUT_S, consistency=consistency)
    assert given == "answer"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("", NO_ANSWER),
        (NO_ANSWER, NO_ANSWER),
        ("no standby answers", "no standby answers; if the call changes anything, it is unknown"),
    ],
)
@pytest.mark.parametrize("deadline", [None, 60.0])
async def test_a_call_whose_connection_is_aborted_is_told_the_fault_of_the_database(
    fault: str, told: str, deadline: float | None
) -> None:
    async def run() -> str:
        error = no_answer()
        error.add_note("the connection was aborted")
        raise error

    call = Call(
        method=Method("/authz.v1.DirectoryService/Write", *METHODS["Write"]),
        transport=Request({}),
        deadline=None if deadline is None else time.monotonic() + deadline,
        consistency=MINIMIZE_LATENCY,
    )
    with pytest.raises(UnavailableError) as caught:
        await before_deadline(run(), call, lambda: fault)
    assert caught.value.message.startswith(told)
    assert (caught.value.message == NO_ANSWER) is (told == NO_ANSWER)
    assert caught.value.notes == ["the connection was aborted"]
    assert caught.value.retry_after_s


def test_a_decision_without_demands_reads_the_database_only_if_it_may_be_about_the_past() -> None:
    of_the_past = {each.name for each in DECISIONS.methods if "as_of" in each.input_type.fields_by_name}
    methods = [
        Method(f"/{DECISIONS.full_name}/{each.name}", *METHODS[each.name]) for each in DECISIONS.methods
    ]
    assert {each.short_name for each in methods if each.reads_database} == of_the_past
