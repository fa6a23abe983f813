"""What the decision log keeps of each call, read from the file that a real server writes."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from authz.api.decisions import MAX_UNAUTHENTICATED_PER_S
from authz.domain.instants import US_PER_S
from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import privacy_pb2 as ppb
from tests.api.test_api import ALGEBRA, COURSE, MATERIAL, MAYA, STUDENT, question, touch
from tests.callers import grant
from tests.databases import create_sqlite
from tests.issuer import Issuer, bearer
from tests.service import Service, serve

pytestmark = pytest.mark.asyncio(loop_scope="module")

ISSUER = Issuer()
OMAR = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="omar")
NOTEBOOK = pb.Resource(type="notebook", id="nb-7", scope=ALGEBRA, owner=MAYA, ai_allowed=True)
AI_COURSE = touch(course=pb.Course(id="algebra", state=pb.COURSE_STATE_ACTIVE, ai_enabled=True))
LESSON = touch(
    session=pb.Session(id="s-1", course_id="algebra", state=pb.SESSION_STATE_LIVE, open_to_course=True)
)
MAX_DEPTH = 3
_marks = itertools.count()


class SecuredServer:
    """A server that logs decisions, what it has logged, and who may call it."""

    def __init__(self, service: Service, file: Path) -> None:
        self.service = service
        self._file = file

    async def call(self, method: str, request: Any, role: str = "platform_admin", **more: str) -> Any:
        """What a caller with a role is answered; None for an error."""
        stubs = (self.service.directory, self.service.privacy, self.service.authorization)
        stub = next(each for each in stubs if hasattr(each, method))
        metadata = (*bearer(ISSUER.jwt(role)), *more.items())
        with suppress(grpc.aio.AioRpcError):
            return await getattr(stub, method)(request, metadata=metadata, timeout=20)

    @asynccontextmanager
    async def logged(self) -> AsyncIterator[list[dict[str, Any]]]:
        """The entries of the calls in the block, in a list that is complete after it."""
        begun, entries = self._file.stat().st_size, list[dict[str, Any]]()
        yield entries
        # Entries are written in order: all others are there once that of this call is.
        mark = f"mark-{next(_marks)}"
        await self.call("ReadCourses", dpb.ReadCoursesRequest(), **{"x-request-id": mark})
        while mark.encode() not in (text := self._file.read_bytes()[begun:]):  # noqa: ASYNC110  of another thread
            await asyncio.sleep(0.005)
        entries += [each for each in map(json.loads, text.splitlines()) if each["request_id"] != mark]


@asynccontextmanager
async def opened(folder: Path, **settings: str) -> AsyncIterator[SecuredServer]:
    url, file = create_sqlite(folder / "authz.db"), folder / "decisions.jsonl"
    file.touch()
    grant(url, {f"service:{role}": role for role in ("platform_admin", "checker", "compliance_auditor")})
    settings |= {"decision_log": f"file:{file}", **ISSUER.settings(folder)}
    async with serve(url, now=time.time_ns() // 1000, **settings) as service:
        secured = SecuredServer(service, file)
        notebook = touch(resource=NOTEBOOK)
        records = [AI_COURSE, LESSON, STUDENT, MATERIAL, notebook]
        assert await secured.call("Write", dpb.WriteRequest(mutations=records))
        yield secured


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecuredServer]:
    """Everything is kept."""
    async with opened(tmp_path_factory.mktemp("secured")) as each:
        yield each


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sparing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecuredServer]:
    """Of what is allowed, only what must be is kept."""
    async with opened(tmp_path_factory.mktemp("sparing"), decision_log_sample_rate="0") as each:
        yield each


def short(entry: dict[str, Any]) -> str:
    """What is essential of an entry."""
    answer = "allowed" if entry["allowed"] else "denied"
    parts = (entry["method"], entry["subject"], entry["action"], entry["resource"], answer, entry["reason"])
    return " ".join(part or "-" for part in parts)


async def test_an_answer_is_kept_with_all_that_it_was_decided_by(secured: SecuredServer) -> None:
    async with secured.logged() as entries:
        answer = await secured.call("Check", question(request_id="r-1"), "checker")
    (entry,) = entries
    assert entry.pop("at").startswith("20")
    assert 0 < entry.pop("duration_us") < 20_000_000
    assert entry.pop("revision") > 1
    assert entry == {
        "decision_id": answer.decision_id,
        "method": "Check",
        "code": "OK",
        "caller": "service:checker",
        "person": "",
        "request_id": "r-1",
        "subject": "user:maya",
        "action": "read",
        "resource": "material:m-1",
        "course_id": "",
        "session_id": "",
        "purpose": "",
        "allowed": True,
        "reason": "ROLE_GRANT",
        "role": "student",
        "rule": answer.rule.source,
        "policy_version": "1",
        "course_policy_version": "",
    }


def asks(subject: pb.Subject, action: str, resource: str, **more: Any) -> apb.CheckRequest:
    type_name, _, id_ = resource.partition(":")
    query = apb.ResourceQuery(type=type_name, id=id_)
    return apb.CheckRequest(subject=subject, action=action, resource=query, **more)


KEPT: dict[str, tuple[str, Any, str, list[str]]] = {
    "a denial": (
        "Check",
        asks(OMAR, "read", "notebook:nb-7"),
        "checker",
        ["Check user:omar read notebook:nb-7 denied NOT_A_MEMBER"],
    ),
    "a batch, without the question that has no answer": (
        "BatchCheck",
        apb.BatchCheckRequest(items=[question(), question("raed"), question("update")]),
        "checker",
        [
            "BatchCheck user:maya read material:m-1 allowed ROLE_GRANT",
            "BatchCheck user:maya update material:m-1 denied NO_RULE",
        ],
    ),
    "the actions that are allowed": (
        "ListActions",
        apb.ListActionsRequest(subject=MAYA, resource=apb.ResourceQuery(type="notebook", id="nb-7")),
        "checker",
        [
            f"ListActions user:maya {action} notebook:nb-7 allowed ROLE_GRANT"
            for action in ("read", "update", "delete", "share", "export")
        ],
    ),
    "that no action is allowed": (
        "ListActions",
        apb.ListActionsRequest(subject=OMAR, resource=apb.ResourceQuery(type="notebook", id="nb-7")),
        "checker",
        ["ListActions user:omar * notebook:nb-7 denied NOT_A_MEMBER"],
    ),
    "each resource of a list": (
        "ListResources",
        apb.ListResourcesRequest(subject=MAYA, action="read", types=["notebook", "material"]),
        "checker",
        [
            "ListResources user:maya read material:m-1 allowed ROLE_GRANT",
            "ListResources user:maya read notebook:nb-7 allowed ROLE_GRANT",
        ],
    ),
    "what is open in a session": (
        "AuthorizeSession",
        apb.AuthorizeSessionRequest(subject=MAYA, session_id="s-1"),
        "checker",
        ["AuthorizeSession user:maya join session:s-1 allowed ROLE_GRANT"],
    ),
    "each source of an answer by AI": (
        "AuthorizeSources",
        apb.AuthorizeSourcesRequest(subject=MAYA, sources=[apb.ResourceQuery(type="notebook", id="nb-7")]),
        "checker",
        ["AuthorizeSources user:maya ai_process notebook:nb-7 allowed ROLE_GRANT"],
    ),
    "who was listed, as a question about the resource": (
        "ListSubjects",
        apb.ListSubjectsRequest(action="read", resource=apb.ResourceQuery(type="notebook", id="nb-7")),
        "compliance_auditor",
        ["ListSubjects - read notebook:nb-7 allowed -"],
    ),
    "that somebody was told what to filter by": (
        "PlanResources",
        apb.PlanResourcesRequest(subject=MAYA, action="read", type="notebook"),
        "checker",
        ["PlanResources user:maya read notebook allowed -"],
    ),
    "an explanation": (
        "Explain",
        apb.ExplainRequest(
            subject=MAYA, action="read", resource=apb.ResourceQuery(type="notebook", id="nb-7")
        ),
        "compliance_auditor",
        ["Explain user:maya read notebook:nb-7 allowed ROLE_GRANT"],
    ),
    "a look at somebody's memberships": (
        "ReadMemberships",
        dpb.ReadMembershipsRequest(subject=MAYA),
        "compliance_auditor",
        ["ReadMemberships user:maya - - allowed -"],
    ),
    "a call that its caller may not make": (
        "Explain",
        apb.ExplainRequest(
            subject=MAYA, action="read", resource=apb.ResourceQuery(type="notebook", id="nb-7")
        ),
        "checker",
        ["Explain user:maya read notebook:nb-7 denied PERMISSION_MISSING"],
    ),
    "a write that its caller may not make": (
        "Write",
        dpb.WriteRequest(mutations=[COURSE]),
        "checker",
        ["Write - - - denied PERMISSION_MISSING"],
    ),
    "no write, which is in the change log": (
        "Write",
        dpb.WriteRequest(mutations=[MATERIAL]),
        "platform_admin",
        [],
    ),
    "no hold, which is in the change log": (
        "HoldSubject",
        ppb.HoldSubjectRequest(subject=OMAR, reason="case 12"),
        "platform_admin",
        [],
    ),
    "an attempt to forget a watcher that is not there": (
        "ForgetWatcher",
        ppb.ForgetWatcherRequest(caller="service:gone"),
        "platform_admin",
        ["ForgetWatcher - - - allowed PRECONDITION_FAILED"],
    ),
    "no question that is malformed": ("Check", question("raed"), "checker", []),
}


@pytest.mark.parametrize("name", KEPT)
async def test_what_is_kept_of_a_call(secured: SecuredServer, name: str) -> None:
    method, request, role, expected = KEPT[name]
    async with secured.logged() as entries:
        await secured.call(method, request, role)
    assert [short(entry) for entry in entries] == expected
    assert len({entry["decision_id"] for entry in entries}) == len(entries)


def texts_of(message: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path to each text in a message of a type."""
    for field in message.fields:
        if field.message_type is None:
            if field.type == field.TYPE_STRING and not field.is_repeated:
                yield (*path, field.name)
        elif len(path) < MAX_DEPTH and not field.is_repeated:
            yield from texts_of(field.message_type, (*path, field.name))


@pytest.mark.parametrize("method", apb.DESCRIPTOR.services_by_name["AuthorizationService"].methods_by_name)
async def test_no_text_with_a_nul_reaches_the_log(secured: SecuredServer, method: str) -> None:
    types = apb.DESCRIPTOR.services_by_name["AuthorizationService"].methods_by_name[method].input_type
    valid = {"subject": MAYA, "action": "read", "resource": question().resource, "session_id": "s-1"}
    known = {name: value for name, value in valid.items() if name in types.fields_by_name}
    async with secured.logged() as entries:
        for *folders, name in texts_of(types):
            request = getattr(apb, types.name)(**known)
            message = request
            for folder in folders:
                message = getattr(message, folder)
            setattr(message, name, "a\0b")
            await secured.call(method, request)
    assert "\0" not in "".join(str(value) for entry in entries for value in entry.values())


async def test_without_a_sample_of_what_is_allowed_the_rest_is_still_kept(sparing: SecuredServer) -> None:
    ai = asks(MAYA, "ai_process", "notebook:nb-7", purpose="ai_response")
    listed = KEPT["each resource of a list"][1]
    async with sparing.logged() as entries:
        await sparing.call("Check", question(), "checker")
        await sparing.call("ListResources", listed, "checker")
        await sparing.call("Check", asks(OMAR, "read", "notebook:nb-7"), "checker")
        await sparing.call("Check", ai, "checker")
        await sparing.call("Explain", KEPT["an explanation"][1], "compliance_auditor")
    assert [short(entry) for entry in entries] == [
        "Check user:omar read notebook:nb-7 denied NOT_A_MEMBER",
        "Check user:maya ai_process notebook:nb-7 allowed ROLE_GRANT",
        "Explain user:maya read notebook:nb-7 allowed ROLE_GRANT",
    ]
    assert entries[1]["purpose"] == "ai_response"


async def test_who_proves_nothing_is_kept_as_such(secured: SecuredServer) -> None:
    async with secured.logged() as entries:
        with pytest.raises(grpc.aio.AioRpcError):
            await secured.service.authorization.Check(question())
    (entry,) = entries
    assert (entry["caller"], entry["code"], entry["allowed"]) == ("unauthenticated", "UNAUTHENTICATED", False)
    assert entry["reason"] == "CREDENTIAL_MISSING"


async def test_who_proves_nothing_fills_no_log_and_keeps_no_denial_out(secured: SecuredServer) -> None:
    calls = [
        lambda: secured.service.authorization.Check(question()),
        lambda: secured.service.authorization.Explain(apb.ExplainRequest(request_id="no id")),
        lambda: secured.service.directory.ReadCourses(dpb.ReadCoursesRequest()),
    ]
    for _ in range(2):
        secured.service.now += US_PER_S
        async with secured.logged() as entries:
            for number in range(3 * MAX_UNAUTHENTICATED_PER_S):
                with pytest.raises(grpc.aio.AioRpcError):
                    await calls[number % 3]()
            await secured.call("Check", asks(OMAR, "read", "notebook:nb-7"), "checker")
        *refused, denial = entries
        assert short(denial) == "Check user:omar read notebook:nb-7 denied NOT_A_MEMBER"
        assert {(each["caller"], each["allowed"]) for each in refused} == {("unauthenticated", False)}
        assert len(refused) == MAX_UNAUTHENTICATED_PER_S


async def test_the_person_that_a_call_is_made_for_is_kept(secured: SecuredServer) -> None:
    async with secured.logged() as entries:
        await secured.call(
            "ReadMemberships", dpb.ReadMembershipsRequest(), **{"authz-acting-for": "user:ada"}
        )
    (entry,) = entries
    assert (entry["caller"], entry["person"]) == ("service:platform_admin", "user:ada")


async def test_an_import_for_a_person_that_refuses_a_record_is_kept_as_refused(
    secured: SecuredServer,
) -> None:
    taken = touch(membership=pb.Membership(subject=MAYA, scope=ALGEBRA, role="owner"))
    requests = [dpb.ImportRequest(mutations=[each, each]) for each in (taken, COURSE, taken)]
    async with secured.logged() as entries:
        answer = await secured.call("Import", iter(requests), **{"authz-acting-for": "user:maya"})
    assert answer.failed == 6
    (entry,) = entries
    assert (entry["code"], entry["allowed"], entry["reason"]) == ("OK", False, "PERMISSION_MISSING")
    assert (entry["caller"], entry["person"]) == ("service:platform_admin", "user:maya")
