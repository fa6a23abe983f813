"""The change log as an audit trail: who changed what, for whom and why, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from authz.v1 import audit_pb2 as aupb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import watch_pb2 as wpb
from tests.api.test_api import ALGEBRA, MAYA, delete, touch
from tests.service import START, Service, reason_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADA, OMAR = (pb.Subject(type=pb.SUBJECT_TYPE_USER, id=name) for name in ("ada", "omar"))
UPPER = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="MAYA")
COURSE = pb.Course(id="algebra", state=pb.COURSE_STATE_ACTIVE)
NOTEBOOK = pb.Resource(type="notebook", id="nb-7", scope=ALGEBRA, owner=MAYA)
SHARE = pb.Share(resource_type="notebook", resource_id="nb-7", subject=OMAR, level=pb.SHARE_LEVEL_VIEWER)
STEP_US = 60_000_000
FOR_ADA = (("authz-acting-for", "user:ada"), ("x-request-id", "call-4"))


def member(subject: pb.Subject, role: str, **fields: Any) -> pb.Membership:
    return pb.Membership(subject=subject, scope=ALGEBRA, role=role, **fields)


def update(path: str, **entity: Any) -> dpb.Mutation:
    mutation = dpb.Mutation(operation=dpb.OPERATION_UPDATE, **entity)
    mutation.update_mask.paths.append(path)
    return mutation


SUSPENDED = member(MAYA, "student", status=pb.MEMBERSHIP_STATUS_SUSPENDED)
WRITES: list[tuple[str, list[dpb.Mutation], Any]] = [
    ("the term begins", [touch(course=COURSE), touch(membership=member(ADA, "teacher"))], ()),
    ("enrolled", [touch(membership=member(MAYA, "student")), touch(membership=member(OMAR, "student"))], ()),
    ("", [touch(resource=NOTEBOOK), touch(share=SHARE), touch(membership=member(UPPER, "student"))], ()),
    ("report 17", [update("status", membership=SUSPENDED)], FOR_ADA),
    ("given to Omar", [update("owner", resource=pb.Resource(type="notebook", id="nb-7", owner=OMAR))], ()),
    ("", [touch(account=pb.Account(subject=MAYA)), touch(course=pb.Course(id="biology"))], ()),
    ("withdrawn", [delete(resource=NOTEBOOK)], ()),
]
"""Each a minute after the one before; the policy of the release is revision 1."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def history(shared_service: Service) -> AsyncIterator[Service]:
    for reason, mutations, metadata in WRITES:
        shared_service.now += STEP_US
        request = dpb.WriteRequest(mutations=mutations, reason=reason)
        await shared_service.directory.Write(request, metadata=metadata)
    yield shared_service


def at(minutes: float) -> Timestamp:
    return Timestamp(seconds=START // 1_000_000 + round(60 * minutes))


async def pages(service: Service, size: int = 100, **wanted: Any) -> list[aupb.LoggedChange]:
    """Everything that a query finds, page by page."""
    request, found = aupb.ReadChangesRequest(page_size=size, **wanted), []
    while True:
        page = await service.audit.ReadChanges(request)
        found += page.changes
        request.page_token = page.next_page_token
        if not request.page_token:
            return found


def key_of(change: aupb.LoggedChange) -> str:
    """The operation, the kind and what tells records of the test apart."""
    record = change.after if change.HasField("after") else change.before
    kind = str(record.WhichOneof("record"))
    found = getattr(record, kind)
    name = found.number if kind == "policy_activation" else getattr(found, "id", None) or found.subject.id
    return f"{dpb.Operation.Name(change.operation).removeprefix('OPERATION_').lower()} {kind} {name}"


async def test_an_update_is_told_with_who_made_it_for_whom_and_why(history: Service) -> None:
    (change,) = await pages(history, principal="user:ada")
    assert (change.actor, change.reason) == ("unauthenticated for user:ada", "report 17")
    assert (change.request_id, change.committed_at) == ("call-4", at(4))
    assert change.before.membership == member(MAYA, "student", status=pb.MEMBERSHIP_STATUS_ACTIVE)
    assert change.after.membership.status == pb.MEMBERSHIP_STATUS_SUSPENDED
    assert change.after.membership.revision == change.revision == 5


async def test_what_was_created_has_nothing_before_it_and_what_was_deleted_nothing_after(
    history: Service,
) -> None:
    found = {
        key_of(each): each for each in await pages(history, resource_type="notebook", resource_id="nb-7")
    }
    assert list(found) == [
        "delete resource nb-7",
        "delete share omar",
        "touch resource nb-7",
        "touch share omar",
    ]
    assert not found["delete resource nb-7"].HasField("after")
    assert found["delete resource nb-7"].before.resource.owner == OMAR
    assert not found["touch share omar"].HasField("before")


FOUND: dict[str, tuple[dict[str, Any], list[str]]] = {
    "by subject, also one that owned": (
        {"subject": MAYA},
        [
            "touch account maya",
            "touch resource nb-7",
            "touch membership maya",
            "touch resource nb-7",
            "touch membership maya",
        ],
    ),
    "by subject, byte by byte": ({"subject": UPPER}, ["touch membership MAYA"]),
    "by subject and kind": (
        {"subject": MAYA, "kinds": [wpb.ENTITY_KIND_MEMBERSHIP]},
        ["touch membership maya", "touch membership maya"],
    ),
    "by course": ({"scope": pb.Scope(course_id="biology")}, ["touch course biology"]),
    "on the platform": (
        {"scope": pb.Scope(platform=pb.Platform()), "since": at(1)},
        ["touch account maya"],
    ),
    "from a time on": ({"since": at(7)}, ["delete resource nb-7", "delete share omar"]),
    "before a time": (
        {"since": at(1), "until": at(2)},
        ["touch membership ada", "touch course algebra"],
    ),
    "the oldest first": (
        {"since": at(1), "until": at(2), "oldest_first": True},
        ["touch course algebra", "touch membership ada"],
    ),
    "by what the service did itself": (
        {"principal": "authz", "kinds": [wpb.ENTITY_KIND_POLICY_ACTIVATION]},
        ["touch policy_activation 1"],
    ),
    "of nobody": ({"principal": "service:none"}, []),
    "after all": ({"since": at(1000)}, []),
}


@pytest.mark.parametrize("name", FOUND)
async def test_changes_are_found(history: Service, name: str) -> None:
    wanted, expected = FOUND[name]
    assert [key_of(each) for each in await pages(history, **wanted)] == expected


@pytest.mark.parametrize("oldest_first", [False, True])
async def test_pages_miss_and_repeat_nothing_while_others_write(history: Service, oldest_first: bool) -> None:
    kinds, until = [wpb.ENTITY_KIND_MEMBERSHIP], at(90)
    wanted: dict[str, Any] = {"kinds": kinds, "scope": ALGEBRA, "until": until, "oldest_first": oldest_first}
    whole = [key_of(each) for each in await pages(history, **wanted)]
    assert len(whole) == 5
    request, found = aupb.ReadChangesRequest(page_size=1, **wanted), list[str]()
    history.now = START + 100 * STEP_US
    for number in range(len(whole)):
        page = await history.audit.ReadChanges(request)
        found += map(key_of, page.changes)
        request.page_token = page.next_page_token
        person = pb.Subject(type=pb.SUBJECT_TYPE_USER, id=f"late-{oldest_first}-{number}")
        later = touch(membership=member(person, "student"))
        await history.directory.Write(dpb.WriteRequest(mutations=[later]))
    assert (found, request.page_token) == (whole, "")


REFUSED: dict[str, tuple[aupb.ReadChangesRequest, str, str]] = {
    "a time that ends before it begins": (
        aupb.ReadChangesRequest(since=at(2), until=at(2)),
        "MALFORMED_FIELD",
        "until is not after `since`",
    ),
    "half a resource": (aupb.ReadChangesRequest(resource_type="notebook"), "MISSING_FIELD", "resource_id"),
    "a page that is too large": (aupb.ReadChangesRequest(page_size=1001), "MALFORMED_FIELD", "1 to 1000"),
    "a subject without an id": (
        aupb.ReadChangesRequest(subject=pb.Subject(type=pb.SUBJECT_TYPE_USER)),
        "MALFORMED_ID",
        "subject.id",
    ),
    "an endless principal": (aupb.ReadChangesRequest(principal="x" * 257), "MALFORMED_FIELD", "principal"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_request_that_is_malformed_is_refused_by_name(history: Service, name: str) -> None:
    request, reason, told = REFUSED[name]
    with pytest.raises(grpc.aio.AioRpcError, match=told) as caught:
        await history.audit.ReadChanges(request)
    assert reason_of(caught.value) == reason


async def test_a_page_token_is_good_for_its_query_alone(history: Service) -> None:
    page = await history.audit.ReadChanges(aupb.ReadChangesRequest(page_size=1))
    other = aupb.ReadChangesRequest(page_size=1, oldest_first=True, page_token=page.next_page_token)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await history.audit.ReadChanges(other)
    assert reason_of(caught.value) == "MALFORMED_TOKEN"
