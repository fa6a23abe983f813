"""Logs: one line a call with its request id, and nothing of what the call was about."""

from __future__ import annotations

import re

import grpc
import pytest

from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from tests.api.test_api import ALGEBRA, COURSE, MATERIAL, MAYA, question, touch, written
from tests.service import Service, reason_of
from tests.store.directory import changes_of, open_with


async def test_the_request_id_comes_from_the_field_else_the_header_else_is_made_up(
    sqlite_service: Service,
) -> None:
    header = (("x-request-id", "from-header"),)
    check = sqlite_service.authorization.Check
    async with sqlite_service.logged() as lines:
        await check(question(request_id="from-field"), metadata=header)
        await check(question(), metadata=header)
        await sqlite_service.directory.ReadCourses(dpb.ReadCoursesRequest(), metadata=header)
        await sqlite_service.directory.Import(iter([dpb.ImportRequest()]), metadata=header)
        await check(question())
    calls = [line for line in lines if line["event"] == "call"]
    assert [line["request_id"] for line in calls[:4]] == ["from-field", *["from-header"] * 3]
    assert re.fullmatch(r"[0-9a-f]{12}-[0-9]+", calls[4]["request_id"])
    assert {line["code"] for line in calls} == {"OK"}
    assert [line["method"].rsplit("/", 1)[1] for line in calls] == [
        "Check",
        "Check",
        "ReadCourses",
        "Import",
        "Check",
    ]


async def test_lines_of_calls_hold_nothing_of_their_content(sqlite_service: Service) -> None:
    membership = pb.Membership(
        subject=pb.Subject(type=pb.SUBJECT_TYPE_USER, id="secret-subject"),
        scope=ALGEBRA,
        role="student",
        source="secret-source",
        source_ref="secret-ref",
    )
    request = dpb.WriteRequest(
        mutations=[COURSE, touch(membership=membership)],
        reason="secret-reason",
        idempotency_key="secret-key",
    )
    async with sqlite_service.logged() as lines:
        await sqlite_service.directory.Write(request)
        await sqlite_service.directory.Import(
            iter([dpb.ImportRequest(mutations=request.mutations, reason="secret-reason")])
        )
        await sqlite_service.directory.ReadMemberships(dpb.ReadMembershipsRequest(source="secret-source"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await written(sqlite_service, touch(course=pb.Course(id="secret id")))
    assert reason_of(caught.value) == "MALFORMED_ID"
    assert [line["code"] for line in lines] == ["OK", "OK", "OK", "INVALID_ARGUMENT"]
    assert "secret" not in str(lines)


async def test_a_decision_is_told_only_at_debug_and_by_the_id_in_the_answer(sqlite_service: Service) -> None:
    await written(sqlite_service, COURSE, MATERIAL)
    async with sqlite_service.logged() as lines:
        answer = await sqlite_service.authorization.Check(question(request_id="r-1"))
    told = [line for line in lines if line["event"] == "decision"]
    assert [line["log_level"] for line in told] == ["debug"]
    assert (told[0]["decision_id"], told[0]["request_id"]) == (answer.decision_id, "r-1")
    assert (told[0]["allowed"], told[0]["reason"]) == (False, "NOT_A_MEMBER")
    assert not [line for line in lines if line["log_level"] != "debug" and MAYA.id in str(line)]


async def test_the_change_log_keeps_who_why_and_by_which_call(
    sqlite_url: str, sqlite_service: Service
) -> None:
    await sqlite_service.directory.Write(
        dpb.WriteRequest(mutations=[COURSE], reason="term start", request_id="r-1")
    )
    messages = [
        dpb.ImportRequest(mutations=[touch(course=pb.Course(id="b"))], reason="roster"),
        dpb.ImportRequest(mutations=[touch(course=pb.Course(id="c"))]),
    ]
    await sqlite_service.directory.Import(iter(messages), metadata=(("x-request-id", "r-2"),))
    store = open_with(sqlite_url)
    changes = changes_of(store, 1, 10)  # after the first policy
    store.close()
    assert [(change.reason, change.request_id) for change in changes] == [
        ("term start", "r-1"),
        ("roster", "r-2"),
        ("roster", "r-2"),
    ]
    assert {change.actor for change in changes} == {"unauthenticated"}


async def test_the_line_of_a_call_that_failed_says_why_and_who_called(sqlite_service: Service) -> None:
    async with sqlite_service.logged() as lines:
        with pytest.raises(grpc.aio.AioRpcError):
            await sqlite_service.authorization.Check(question("raed"))
    (line,) = (line for line in lines if line["event"] == "call")
    assert (line["code"], line["reason"]) == ("INVALID_ARGUMENT", "UNKNOWN_ACTION")
    assert line["caller"] == "unauthenticated"
