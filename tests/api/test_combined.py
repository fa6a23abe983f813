"""AuthorizeSession and AuthorizeSources answer as the checks that they combine."""

from __future__ import annotations

import random

import grpc
import pytest

from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from tests.api.test_api import COURSE, MAYA, touch, written
from tests.api.test_lists import USERS, campus
from tests.service import START, Service, reason_of

OMAR = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="omar")
START_S = START // 1_000_000


def query(type_name: str, id_: str) -> apb.ResourceQuery:
    return apb.ResourceQuery(type=type_name, id=id_)


async def check(
    service: Service, subject: pb.Subject, action: str, resource: apb.ResourceQuery, purpose: str = ""
) -> apb.CheckResponse:
    request = apb.CheckRequest(subject=subject, action=action, resource=resource, purpose=purpose)
    answer: apb.CheckResponse = await service.authorization.Check(request)
    return answer


def without_id(answer: apb.CheckResponse) -> apb.CheckResponse:
    """An answer without what differs between two answers to one question."""
    answer.ClearField("decision_id")
    answer.ClearField("valid_until")  # of a combination, that of all
    return answer


async def test_they_agree_with_check_on_a_random_campus(sqlite_service: Service) -> None:
    mutations = campus(random.Random(7))
    for each in mutations:
        if each.HasField("resource"):
            each.resource.ai_allowed = True
    await written(sqlite_service, *mutations)
    sources = [query(m.resource.type, m.resource.id) for m in mutations if m.HasField("resource")]
    assert len(sources) > 20
    used = 0
    for user in USERS:
        for session in (m.session for m in mutations if m.HasField("session")):
            asked = apb.AuthorizeSessionRequest(subject=user, session_id=session.id)
            told = await sqlite_service.authorization.AuthorizeSession(asked)
            here = query("session", session.id)
            join = await check(sqlite_service, user, "join", here)
            assert without_id(told.join) == without_id(join)
            for action in ("present", "moderate", "record"):
                expected = join.allowed and (await check(sqlite_service, user, action, here)).allowed
                assert getattr(told, f"may_{action}") == expected
        request = apb.AuthorizeSourcesRequest(subject=user, sources=sources)
        results = (await sqlite_service.authorization.AuthorizeSources(request)).results
        for source, result in zip(sources, results, strict=True):
            answers = {
                "read": await check(sqlite_service, user, "read", source),
                "ai_process": await check(sqlite_service, user, "ai_process", source, "ai_response"),
            }
            denied = next((action for action, each in answers.items() if not each.allowed), "")
            assert result.denied_action == denied
            assert without_id(result.response) == without_id(answers[denied or "ai_process"])
            used += not denied
    assert used


async def test_an_entrance_says_until_when_and_of_which_course(sqlite_service: Service) -> None:
    session = pb.Session(id="monday", course_id="algebra", state=pb.SESSION_STATE_LIVE)
    session.ends_at.seconds = START_S + 3600
    member = pb.Membership(subject=MAYA, scope=pb.Scope(session_id="monday"), role="host")
    member.ends_at.seconds = START_S + 600
    await written(sqlite_service, COURSE, touch(session=session), touch(membership=member))
    request = apb.AuthorizeSessionRequest(subject=MAYA, session_id="monday")
    told = await sqlite_service.authorization.AuthorizeSession(request)
    assert told.join.allowed
    assert (told.may_present, told.may_moderate, told.may_record) == (True, True, True)
    assert (told.course_id, told.ends_at, told.valid_until) == ("algebra", session.ends_at, member.ends_at)
    request.subject.CopyFrom(OMAR)
    denied = await sqlite_service.authorization.AuthorizeSession(request)
    assert denied.join.reason == apb.REASON_NOT_A_MEMBER
    # Who may not join is told nothing of the session.
    assert denied == apb.AuthorizeSessionResponse(join=denied.join)


async def test_who_may_not_join_yet_is_told_until_when(sqlite_service: Service) -> None:
    session = pb.Session(id="monday", course_id="algebra", state=pb.SESSION_STATE_LIVE)
    member = pb.Membership(subject=MAYA, scope=pb.Scope(session_id="monday"), role="host")
    member.starts_at.seconds = START_S + 600
    await written(sqlite_service, COURSE, touch(session=session), touch(membership=member))
    request = apb.AuthorizeSessionRequest(subject=MAYA, session_id="monday")
    told = await sqlite_service.authorization.AuthorizeSession(request)
    assert (told.join.allowed, told.valid_until) == (False, member.starts_at)


async def test_a_source_at_fault_fails_alone(sqlite_service: Service) -> None:
    await written(sqlite_service, COURSE)
    sources = [query("notebook", "a b"), query("notebok", "nb"), query("notebook", "nb")]
    request = apb.AuthorizeSourcesRequest(subject=MAYA, sources=sources)
    results = (await sqlite_service.authorization.AuthorizeSources(request)).results
    assert [result.WhichOneof("result") for result in results] == ["error", "error", "response"]
    assert "did you mean `notebook`" in results[1].error.message
    assert (results[2].response.allowed, results[2].denied_action) == (False, "read")


@pytest.mark.parametrize(
    ("name", "request_", "reason"),
    [
        ("AuthorizeSession", apb.AuthorizeSessionRequest(subject=MAYA), "MISSING_FIELD"),
        ("AuthorizeSession", apb.AuthorizeSessionRequest(subject=MAYA, session_id="a b"), "MALFORMED_ID"),
        ("AuthorizeSession", apb.AuthorizeSessionRequest(session_id="s"), "MISSING_FIELD"),
        ("AuthorizeSources", apb.AuthorizeSourcesRequest(subject=MAYA), "MISSING_FIELD"),
        ("AuthorizeSources", apb.AuthorizeSourcesRequest(sources=[query("notebook", "n")]), "MISSING_FIELD"),
        (
            "AuthorizeSources",
            apb.AuthorizeSourcesRequest(subject=MAYA, sources=[query("notebook", "n")] * 1001),
            "TOO_MANY_ITEMS",
        ),
    ],
)
async def test_a_malformed_request_is_refused(
    sqlite_service: Service, name: str, request_: object, reason: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(sqlite_service.authorization, name)(request_)
    assert reason_of(caught.value) == reason
