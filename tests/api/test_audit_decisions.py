"""The decision log in the database, as its reader sees it, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from authz.audit.table import TableSink
from authz.v1 import audit_pb2 as aupb
from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from tests.api.test_api import ALGEBRA, COURSE, MATERIAL, MAYA, STUDENT, question, touch
from tests.service import START, Service, in_process, reason_of, serve

pytestmark = [pytest.mark.asyncio(loop_scope="module"), in_process]

ADA, OMAR = (pb.Subject(type=pb.SUBJECT_TYPE_USER, id=name) for name in ("ada", "omar"))
TEACHER = touch(membership=pb.Membership(subject=ADA, scope=ALGEBRA, role="teacher"))
NOTEBOOK = touch(resource=pb.Resource(type="notebook", id="nb-7", scope=ALGEBRA, owner=MAYA))
STEP_US = 60_000_000


def asks(subject: pb.Subject, action: str, type_name: str, id_: str) -> apb.CheckRequest:
    return apb.CheckRequest(
        subject=subject, action=action, resource=apb.ResourceQuery(type=type_name, id=id_)
    )


ASKED = [
    asks(MAYA, "read", "notebook", "nb-7"),
    asks(OMAR, "read", "notebook", "nb-7"),
    asks(ADA, "read", "material", "m-1"),
    asks(MAYA, "update", "material", "m-1"),
    asks(MAYA, "read", "material", "m-1"),
]
"""Each a minute after the one before."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def history(shared_store_url: str) -> AsyncIterator[Service]:
    """A server that has answered, and whose log has it all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TableSink, "gather_s", 0.0)
        async with serve(shared_store_url, decision_log="table") as service:
            records = [COURSE, STUDENT, TEACHER, MATERIAL, NOTEBOOK]
            await service.directory.Write(dpb.WriteRequest(mutations=records))
            for request in ASKED:
                service.now += STEP_US
                await service.authorization.Check(request)
            service.now += STEP_US
            await service.directory.ReadMemberships(
                dpb.ReadMembershipsRequest(subject=MAYA), metadata=(("authz-acting-for", "user:ada"),)
            )
            service.now += 10 * STEP_US
            while len(await pages(service, until=at(7))) < len(ASKED) + 1:  # noqa: ASYNC110  of a thread
                await asyncio.sleep(0.01)
            yield service


def at(minutes: float) -> Timestamp:
    return Timestamp(seconds=START // 1_000_000 + round(60 * minutes))


async def pages(service: Service, size: int = 100, **wanted: Any) -> list[aupb.LoggedDecision]:
    """Everything that a query finds, page by page."""
    request, found = aupb.ReadDecisionsRequest(page_size=size, **wanted), list[aupb.LoggedDecision]()
    while True:
        page = await service.audit.ReadDecisions(request)
        found += page.decisions
        request.page_token = page.next_page_token
        if not request.page_token:
            return found


def short(entry: aupb.LoggedDecision) -> str:
    answer = "allowed" if entry.allowed else "denied"
    parts = (entry.method, entry.subject.id, entry.action, entry.resource_id, answer)
    return " ".join(part or "-" for part in parts)


FOUND: dict[str, tuple[dict[str, Any], list[str]]] = {
    "who was let in to this notebook": (
        {"resource_type": "notebook", "resource_id": "nb-7", "allowed": True},
        ["Check maya read nb-7 allowed"],
    ),
    "what this person was asked about": (
        {"subject": MAYA},
        [
            "ReadMemberships maya - - allowed",
            "Check maya read m-1 allowed",
            "Check maya update m-1 denied",
            "Check maya read nb-7 allowed",
        ],
    ),
    "by whom": ({"subject": MAYA, "principal": "user:ada"}, ["ReadMemberships maya - - allowed"]),
    "a subject and a resource, the oldest first": (
        {"subject": MAYA, "resource_type": "material", "resource_id": "m-1", "oldest_first": True},
        ["Check maya update m-1 denied", "Check maya read m-1 allowed"],
    ),
    "an action that was denied": (
        {"action": "read", "allowed": False},
        ["Check omar read nb-7 denied"],
    ),
    "between two times": ({"since": at(2), "until": at(3)}, ["Check omar read nb-7 denied"]),
    "nothing": ({"subject": OMAR, "allowed": True}, []),
}


@pytest.mark.parametrize("name", FOUND)
async def test_entries_are_found(history: Service, name: str) -> None:
    wanted, expected = FOUND[name]
    wanted = {"until": at(7), **wanted}  # what this test reads itself is logged later
    assert [short(each) for each in await pages(history, **wanted)] == expected
    one_by_one = await pages(history, 1, **wanted)
    assert [short(each) for each in one_by_one] == expected


async def logged(service: Service, request_id: str, **wanted: Any) -> list[aupb.LoggedDecision]:
    """The entries of a call, once they are there."""
    while True:
        found = [each for each in await pages(service, **wanted) if each.request_id == request_id]
        if found:
            return found
        await asyncio.sleep(0.01)


async def test_an_entry_has_all_that_it_was_decided_by(history: Service) -> None:
    answer = await history.authorization.Check(question(request_id="r-7"))
    (entry,) = await logged(history, "r-7", subject=MAYA)
    assert entry.decision_id == answer.decision_id
    assert (entry.caller, entry.code, entry.reason) == ("unauthenticated", "OK", "ROLE_GRANT")
    assert (entry.role, entry.rule, entry.policy_version) == ("student", answer.rule.source, "1")
    assert (entry.resource_type, entry.resource_id, entry.revision) == ("material", "m-1", 2)
    assert entry.duration.ToMicroseconds() > 0
    assert not entry.HasField("person")


async def test_reading_the_log_is_in_the_log(history: Service) -> None:
    metadata = (("x-request-id", "who-looks"),)
    await history.audit.ReadDecisions(aupb.ReadDecisionsRequest(subject=OMAR), metadata=metadata)
    found = await logged(history, "who-looks", subject=OMAR)
    assert [short(each) for each in found] == ["ReadDecisions omar - - allowed"]


async def test_a_request_that_is_malformed_is_refused_by_name(history: Service) -> None:
    for request, told in (
        (aupb.ReadDecisionsRequest(action="re ad"), "re ad"),
        (aupb.ReadDecisionsRequest(resource_id="nb-7"), "resource_type"),
        (aupb.ReadDecisionsRequest(since=at(2), until=at(1)), "until"),
        (aupb.ReadDecisionsRequest(page_size=-1), "page_size"),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=told) as caught:
            await history.audit.ReadDecisions(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    page = await history.audit.ReadDecisions(aupb.ReadDecisionsRequest(page_size=1))
    other = aupb.ReadDecisionsRequest(subject=MAYA, page_token=page.next_page_token)
    with pytest.raises(grpc.aio.AioRpcError) as mixed:
        await history.audit.ReadDecisions(other)
    assert reason_of(mixed.value) == "MALFORMED_TOKEN"
    assert page.logs_to_database


async def test_a_server_says_that_it_logs_nothing_there(shared_store_url: str) -> None:
    async with serve(shared_store_url) as service:
        page = await service.audit.ReadDecisions(aupb.ReadDecisionsRequest())
    assert not page.logs_to_database
