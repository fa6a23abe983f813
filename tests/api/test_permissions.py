"""Every call of the API by every default role of a caller; who may not call learns what is missing."""

from __future__ import annotations

import time
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import message_factory
from google.protobuf.timestamp_pb2 import Timestamp

from authz.api import methods
from authz.v1 import audit_pb2 as aupb
from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import policy_pb2 as ppb
from authz.v1 import privacy_pb2
from authz.v1 import watch_pb2 as wpb
from tests.api.test_course_policies import CLOSES, course_files
from tests.api.test_policies import messages
from tests.callers import grant
from tests.databases import create_sqlite
from tests.issuer import Issuer, bearer
from tests.policies import POLICY, with_rows
from tests.service import Service, info_of, serve

ISSUER = Issuer()
GRANTED: dict[str, list[str]] = tomllib.loads(
    (Path(__file__).parent.parent / "cases/callers.toml").read_text()
)["permissions"]
EVERY_PERMISSION = POLICY.vocabulary.types["api"].actions
ROLES = [*GRANTED, "platform_admin", ""]
"""The empty one is that of a caller without any role."""
MAYA = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="maya")
OMAR = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="omar")
SERVICE = pb.Subject(type=pb.SUBJECT_TYPE_SERVICE, id="x")
ALGEBRA = pb.Scope(course_id="algebra")
SERVICES = (each.DESCRIPTOR for each in (apb, aupb, dpb, ppb, privacy_pb2, wpb))
METHODS = {
    method.name: method
    for file in SERVICES
    for service in file.services_by_name.values()
    for method in service.methods
}


def check(action: str = "read", purpose: str = "") -> apb.CheckRequest:
    notebook = apb.ResourceQuery(type="notebook", id="nb-7")
    return apb.CheckRequest(subject=MAYA, action=action, resource=notebook, purpose=purpose)


def touch(**record: Any) -> dpb.Mutation:
    return dpb.Mutation(operation=dpb.OPERATION_TOUCH, **record)


RECORDS: dict[str, dict[str, Any]] = {
    "write_courses": {"course": pb.Course(id="algebra")},
    "write_sessions": {"session": pb.Session(id="monday")},
    "write_memberships": {"membership": pb.Membership(subject=MAYA, scope=ALGEBRA, role="student")},
    "write_accounts": {"account": pb.Account(subject=MAYA)},
    **{
        f"write_{name}": {"resource": pb.Resource(type=name, id="r", scope=ALGEBRA)}
        for name in ("material", "message", "notebook", "session_note")
    },
    "grant_roles": {
        "membership": pb.Membership(subject=SERVICE, scope=pb.Scope(platform=pb.Platform()), role="checker")
    },
}
TOKEN = pb.AccessToken(id="t", subject=SERVICE, digest="0" * 64, ends_at=Timestamp(seconds=4_000_000_000))
SHARE = pb.Share(resource_type="notebook", resource_id="r", subject=MAYA, level=pb.SHARE_LEVEL_VIEWER)
WRITES: list[tuple[str, dict[str, Any]]] = [
    *RECORDS.items(),
    ("grant_roles", {"account": pb.Account(subject=SERVICE)}),
    ("grant_roles", {"access_token": TOKEN}),
    ("write_notebook", {"share": SHARE}),
]
COURSE_EXISTS = dpb.Precondition(expectation=dpb.EXPECTATION_EXISTS, course=pb.Course(id="algebra"))
REQUESTS: dict[str, list[tuple[str, Any]]] = {
    "Check": [
        ("check", check()),
        ("check", check("ai_process")),
        ("check", check("read", "ai_response")),
        ("check_ai_process", check("ai_process", "ai_response")),
    ],
    "BatchCheck": [
        ("check", apb.BatchCheckRequest(items=[check()])),
        ("check_ai_process", apb.BatchCheckRequest(items=[check("ai_process", "ai_response")])),
    ],
    "Write": [
        *((name, dpb.WriteRequest(mutations=[touch(**record)])) for name, record in WRITES),
        ("write_courses", dpb.WriteRequest(preconditions=[COURSE_EXISTS])),
    ],
    "ReadInclusionProof": [
        ("read_changes", aupb.ReadInclusionProofRequest()),
        ("read_decisions", aupb.ReadInclusionProofRequest(log=aupb.AUDIT_LOG_DECISIONS)),
    ],
    "ReadConsistencyProof": [
        ("read_changes", aupb.ReadConsistencyProofRequest()),
        ("read_decisions", aupb.ReadConsistencyProofRequest(log=aupb.AUDIT_LOG_DECISIONS)),
    ],
}
"""Of the calls whose permission depends on what they say: each permission, and a request that needs it."""


def requests_of(name: str) -> list[tuple[str, Any]]:
    """The permissions that a call can need, each with a request that needs it and may fail otherwise."""
    if name == "Import":
        return [(each, iter([dpb.ImportRequest(mutations=[touch(**record)])])) for each, record in WRITES]
    if name in REQUESTS:
        return REQUESTS[name]
    return [(methods.METHODS[name][1], message_factory.GetMessageClass(METHODS[name].input_type)())]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """A server that asks who calls; `service:<role>` has that role on the platform."""
    folder = tmp_path_factory.mktemp("secured")
    url = create_sqlite(folder / "authz.db")
    grant(url, {f"service:{role}": role for role in ROLES if role})
    async with serve(url, now=time.time_ns() // 1000, **ISSUER.settings(folder)) as each:
        yield each


async def outcome_of(secured: Service, name: str, request: Any, token: str) -> grpc.aio.AioRpcError | None:
    """The error of a call, None for an answer. Of a watch, what its first message is."""
    service = METHODS[name].containing_service.full_name
    names = ("audit", "authorization", "directory", "policy", "privacy")
    stubs = {name.title(): getattr(secured, name) for name in names}
    stub = next((s for part, s in stubs.items() if part in service), secured.watch)
    call = getattr(stub, name)(request, metadata=bearer(token), timeout=20)
    try:
        if METHODS[name].server_streaming:
            await call.read()
            call.cancel()
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error
    return None


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_call_is_permitted_exactly_to_the_roles_that_have_its_permission(
    secured: Service, name: str
) -> None:
    refused: list[tuple[str, ...]] = []
    async with secured.logged() as lines:
        for role in ROLES:
            held = EVERY_PERMISSION if role == "platform_admin" else GRANTED.get(role, [])
            token = ISSUER.jwt(role or "nobody")
            writes = any(each.startswith("write_") for each in held)
            for needed, request in requests_of(name):
                error = await outcome_of(secured, name, request, token)
                is_refused = error is not None and error.code() is grpc.StatusCode.PERMISSION_DENIED
                assert is_refused is (needed not in held), (role, needed, error)
                if error is None or not is_refused:
                    continue
                info = info_of(error)
                told = (info.reason, info.metadata["type"], info.metadata["permission"])
                missing = "write_*" if name == "Import" and not writes else needed
                assert told == ("PERMISSION_MISSING", "api", missing)
                assert info.metadata["method"].endswith(f"/{name}")
                caller = f"service:{role or 'nobody'}"
                refused.append(("warning", caller, missing, info.metadata["method"]))
    parts = ("log_level", "caller", "permission", "method")
    shown = [tuple(map(line.get, parts)) for line in lines if line["event"] == "caller refused"]
    assert shown == refused


def test_the_policy_declares_every_permission_that_a_call_can_need() -> None:
    needed = {permission for name in METHODS for permission, _ in requests_of(name)}
    assert needed | {"act_for", "learn_reasons"} == set(EVERY_PERMISSION), "see policies/default.csv"


@pytest.mark.parametrize("role", [role for role in GRANTED if "write_memberships" in GRANTED[role]])
@pytest.mark.asyncio(loop_scope="module")
async def test_only_a_caller_that_may_act_for_a_person_names_one(secured: Service, role: str) -> None:
    write = dpb.WriteRequest(mutations=[touch(**RECORDS["write_memberships"])])
    metadata = (*bearer(ISSUER.jwt(role)), ("authz-acting-for", "user:nobody-in-particular"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await secured.directory.Write(write, metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    # One that may is held to the rights of the person, who has none.
    missing = "manage_members" if "act_for" in GRANTED[role] else "act_for"
    assert info_of(caught.value).metadata["permission"] == missing


@pytest.mark.parametrize("role", GRANTED)
def test_a_default_role_has_exactly_the_permissions_that_it_is_meant_to_have(role: str) -> None:
    assert POLICY.permissions_of(frozenset((role,))) == set(GRANTED[role])


@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_registered_and_where_is_told_to_who_may_know_it(secured: Service) -> None:
    admin = bearer(ISSUER.jwt("platform_admin"))
    records = (RECORDS["write_courses"], RECORDS["write_notebook"])
    await secured.directory.Write(dpb.WriteRequest(mutations=[touch(**r) for r in records]), metadata=admin)
    policy = ppb.ApplyPolicyRequest(course_id="algebra", files=messages(course_files(CLOSES)))
    await secured.policy.ApplyPolicy(policy, metadata=admin)
    known = apb.ResourceQuery(type="notebook", id="r")
    elsewhere = apb.ResourceQuery(type="notebook", id="r", course_id="other")
    unknown = apb.ResourceQuery(type="notebook", id="no-such")

    async def answers(role: str) -> tuple[list[apb.CheckResponse], list[apb.ListActionsResponse]]:
        metadata = bearer(ISSUER.jwt(role))
        checked, listed = [], []
        for query in (known, elsewhere, unknown):
            asked = apb.CheckRequest(subject=OMAR, action="read", resource=query)
            checked.append(await secured.authorization.Check(asked, metadata=metadata))
            actions = apb.ListActionsRequest(subject=OMAR, resource=query)
            listed.append(await secured.authorization.ListActions(actions, metadata=metadata))
        for each in (*checked, *listed):
            each.ClearField("checked_at")
        for each in checked:
            each.ClearField("decision_id")
        return checked, listed

    checked, _ = await answers("platform_admin")
    assert [apb.Reason.Name(each.reason).removeprefix("REASON_") for each in checked] == [
        "NOT_A_MEMBER",
        "SCOPE_MISMATCH",
        "RESOURCE_UNKNOWN",
    ]
    assert checked[0].course_policy_version == "1"
    checked, listed = await answers("checker")
    assert (checked, listed) == ([checked[0]] * 3, [listed[0]] * 3)
    assert checked[0].message == "This does not exist, or you do not take part where it is."
    assert {each.reason for each in listed[0].actions} == {apb.REASON_NOT_A_MEMBER}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_watch_tells_nothing_that_its_caller_may_not_read(secured: Service) -> None:
    admin, metadata = bearer(ISSUER.jwt("platform_admin")), bearer(ISSUER.jwt("watcher"))
    before = (await secured.directory.ReadCourses(dpb.ReadCoursesRequest(), metadata=admin)).read_at
    token = pb.AccessToken()
    token.CopyFrom(TOKEN)
    token.id = "watched"
    await secured.privacy.HoldSubject(
        privacy_pb2.HoldSubjectRequest(subject=OMAR, reason="case 12"), metadata=admin
    )
    for record in ({"access_token": token}, {"course": pb.Course(id="watched")}):
        await secured.directory.Write(dpb.WriteRequest(mutations=[touch(**record)]), metadata=admin)
    told: dict[str, set[str]] = {}
    for role in ("watcher", "compliance_auditor", "privacy_officer"):
        told[role] = set()
        call = secured.watch.Watch(
            wpb.WatchRequest(after=before), metadata=bearer(ISSUER.jwt(role)), timeout=30
        )
        while "course" not in told[role]:
            told[role] |= {each.WhichOneof("entity") for each in (await call.read()).change.mutations}
        call.cancel()
    assert told == {
        "watcher": {"course"},
        "compliance_auditor": {"access_token", "course"},
        "privacy_officer": {"hold", "course"},
    }
    for kind, permission in (
        (wpb.ENTITY_KIND_ACCESS_TOKEN, "read_access_tokens"),
        (wpb.ENTITY_KIND_HOLD, "erase_subject"),
    ):
        named = wpb.WatchRequest(after=before, kinds=[wpb.ENTITY_KIND_COURSE, kind])
        with pytest.raises(grpc.aio.AioRpcError, match=f"none of its roles permits `{permission}`"):
            await secured.watch.Watch(named, metadata=metadata, timeout=30).read()
    exists = dpb.Precondition(expectation=dpb.EXPECTATION_EXISTS, hold=pb.Hold(subject=OMAR))
    request = dpb.WriteRequest(mutations=[touch(course=pb.Course(id="watched"))], preconditions=[exists])
    with pytest.raises(grpc.aio.AioRpcError, match="none of its roles permits `write_holds`"):
        await secured.directory.Write(request, metadata=admin)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_caller_whose_account_is_suspended_is_told_so(secured: Service) -> None:
    admin, watcher = (bearer(ISSUER.jwt(role)) for role in ("platform_admin", "watcher"))
    account = pb.Account(
        subject=pb.Subject(type=pb.SUBJECT_TYPE_SERVICE, id="watcher"), status=pb.ACCOUNT_STATUS_SUSPENDED
    )
    await secured.directory.Write(dpb.WriteRequest(mutations=[touch(account=account)]), metadata=admin)
    request = apb.CheckRequest(
        subject=OMAR, action="read", resource=apb.ResourceQuery(type="notebook", id="r")
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await secured.authorization.Check(request, metadata=watcher)
    assert "end that with `authz account restore service:watcher`" in str(caught.value.details())
    account.status = pb.ACCOUNT_STATUS_ACTIVE
    await secured.directory.Write(dpb.WriteRequest(mutations=[touch(account=account)]), metadata=admin)
    with pytest.raises(grpc.aio.AioRpcError, match="none of its roles permits `check`"):
        await secured.authorization.Check(request, metadata=watcher)
    disputed: dict[str, Any] = {"subject": account.subject, "reason": "disputed"}
    await secured.privacy.RestrictSubject(privacy_pb2.RestrictSubjectRequest(**disputed), metadata=admin)
    with pytest.raises(grpc.aio.AioRpcError, match="privacy lift-restriction service:watcher"):
        await secured.authorization.Check(request, metadata=watcher)
    officer = bearer(ISSUER.jwt("privacy_officer"))
    with pytest.raises(grpc.aio.AioRpcError, match="none of its roles permits `grant_roles`"):
        await secured.privacy.RestrictSubject(
            privacy_pb2.RestrictSubjectRequest(**disputed), metadata=officer
        )
    with pytest.raises(grpc.aio.AioRpcError, match="none of its roles permits `grant_roles`"):
        await secured.privacy.LiftRestriction(
            privacy_pb2.LiftRestrictionRequest(**disputed), metadata=officer
        )
    await secured.privacy.LiftRestriction(privacy_pb2.LiftRestrictionRequest(**disputed), metadata=admin)


NOTEBOOK, TO_AI = apb.ResourceQuery(type="notebook", id="nb-7"), "ai_response"
TELL_OF_AI: dict[str, Any] = {
    "Check": check("ai_process", purpose=TO_AI),
    "BatchCheck": apb.BatchCheckRequest(items=[check(), check("ai_process", purpose=TO_AI)]),
    "ListActions": apb.ListActionsRequest(subject=MAYA, resource=NOTEBOOK, purpose=TO_AI),
    "BatchListActions": apb.BatchListActionsRequest(
        items=[
            apb.ListActionsRequest(subject=MAYA, resource=NOTEBOOK),
            apb.ListActionsRequest(subject=MAYA, resource=NOTEBOOK, purpose=TO_AI),
        ]
    ),
    "ListResources": apb.ListResourcesRequest(subject=MAYA, action="ai_process", purpose=TO_AI),
    "ListSubjects": apb.ListSubjectsRequest(resource=NOTEBOOK, action="ai_process", purpose=TO_AI),
    "PlanResources": apb.PlanResourcesRequest(
        subject=MAYA, action="ai_process", type="notebook", purpose=TO_AI
    ),
    "Explain": apb.ExplainRequest(subject=MAYA, action="ai_process", resource=NOTEBOOK, purpose=TO_AI),
}
"""Requests whose answers say whether an AI response may use a resource."""


@pytest.mark.asyncio(loop_scope="module")
async def test_no_call_tells_of_an_ai_response_to_who_may_not_ask_about_it(
    sqlite_url: str, tmp_path: Path
) -> None:
    grant(sqlite_url, {"service:asker": "compliance_auditor", "service:root": "platform_admin"})
    async with serve(sqlite_url, now=time.time_ns() // 1000, **ISSUER.settings(tmp_path)) as secured:
        for name, request in TELL_OF_AI.items():
            error = await outcome_of(secured, name, request, ISSUER.jwt("asker"))
            assert error is None, (name, error)
        rows = with_rows("p, compliance_auditor, *, api, check_ai_process, , deny")
        policy = ppb.ApplyPolicyRequest(files=messages(rows))
        await secured.policy.ApplyPolicy(policy, metadata=bearer(ISSUER.jwt("root")))
        for name, request in TELL_OF_AI.items():
            error = await outcome_of(secured, name, request, ISSUER.jwt("asker"))
            assert error is not None and error.code() is grpc.StatusCode.PERMISSION_DENIED, name
            assert info_of(error).metadata["permission"] == "check_ai_process", name


@pytest.mark.asyncio(loop_scope="module")
async def test_who_may_do_everything_is_told_that_the_policy_lacks_the_permission_for_a_new_type(
    sqlite_url: str, tmp_path: Path
) -> None:
    grant(sqlite_url, {"service:root": "platform_admin"})
    root = bearer(ISSUER.jwt("root"))
    quiz = touch(resource=pb.Resource(type="quiz", id="q", scope=ALGEBRA))
    async with serve(sqlite_url, now=time.time_ns() // 1000, **ISSUER.settings(tmp_path)) as secured:
        rows = with_rows("type, quiz, create|read", "p, student, *, quiz, read, own, allow")
        await secured.policy.ApplyPolicy(ppb.ApplyPolicyRequest(files=messages(rows)), metadata=root)
        with pytest.raises(grpc.aio.AioRpcError, match="add it to the actions of the type `api`") as caught:
            await secured.directory.Write(dpb.WriteRequest(mutations=[quiz]), metadata=root)
        assert info_of(caught.value).metadata["permission"] == "write_quiz"


@pytest.mark.asyncio(loop_scope="module")
async def test_who_may_not_grant_roles_erases_no_service(sqlite_url: str, tmp_path: Path) -> None:
    roles = {"service:officer": "privacy_officer", "service:x": "checker", "user:maya": "platform_admin"}
    grant(sqlite_url, {**roles, "service:root": "platform_admin", "user:omar": "platform_admin"})
    async with serve(sqlite_url, now=time.time_ns() // 1000, **ISSUER.settings(tmp_path)) as secured:

        async def erase(subject: pb.Subject, caller: str) -> grpc.aio.AioRpcError | None:
            request = privacy_pb2.EraseSubjectRequest(subject=subject, reason="17", orphan_resources=True)
            return await outcome_of(secured, "EraseSubject", request, ISSUER.jwt(caller))

        refused = await erase(SERVICE, "officer")
        assert refused is not None and info_of(refused).metadata["permission"] == "grant_roles"
        assert await erase(MAYA, "officer") is None
        assert await erase(SERVICE, "root") is None


@pytest.mark.asyncio(loop_scope="module")
async def test_a_proof_shows_nothing_of_a_log_that_its_caller_may_not_read(
    sqlite_url: str, tmp_path: Path
) -> None:
    roles = {"service:auditor": "compliance_auditor", "service:officer": "privacy_officer"}
    grant(sqlite_url, {**roles, "service:root": "platform_admin"})
    settings = ISSUER.settings(tmp_path)
    async with serve(sqlite_url, now=time.time_ns() // 1000, decision_log="table", **settings) as secured:
        rows = with_rows(
            "p, compliance_auditor, *, api, read_decisions, , deny",
            "p, privacy_officer, *, api, read_changes, , deny",
        )
        policy = ppb.ApplyPolicyRequest(files=messages(rows))
        await secured.policy.ApplyPolicy(policy, metadata=bearer(ISSUER.jwt("root")))
        for name in ("ReadInclusionProof", "ReadConsistencyProof"):
            for permission, request in requests_of(name):
                for caller, lacks in (("auditor", "read_decisions"), ("officer", "read_changes")):
                    error = await outcome_of(secured, name, request, ISSUER.jwt(caller))
                    assert error is not None, "a proof about nothing is malformed"
                    denied = error.code() is grpc.StatusCode.PERMISSION_DENIED
                    assert denied == (permission == lacks), (name, permission, caller)
