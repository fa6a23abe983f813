"""Explain over a real channel: the answer of Check, all that led to it, and what would allow."""

from __future__ import annotations

import random

import grpc
import pytest

from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from tests.api.test_api import ALGEBRA, COURSE, MATERIAL, MAYA, STUDENT, question, touch, written
from tests.api.test_course_policies import CLOSES, OTHER, applied_in
from tests.api.test_lists import USERS, campus
from tests.service import START, Service, info_of, reason_of

DAY_S = 86_400


def explain_request(check: apb.CheckRequest) -> apb.ExplainRequest:
    return apb.ExplainRequest(
        subject=check.subject, action=check.action, resource=check.resource, purpose=check.purpose
    )


async def test_a_denial_is_told_from_the_memberships_to_what_would_allow(service: Service) -> None:
    exam = pb.Resource(type="material", id="m-1", scope=ALGEBRA, published=True)
    exam.available_from.seconds = START // 1_000_000 + 3 * DAY_S
    await written(service, COURSE, STUDENT, touch(resource=exam))
    told = await service.authorization.Explain(explain_request(question()))
    assert (told.answer.allowed, told.answer.reason) == (False, apb.REASON_CONDITION_NOT_MET)
    assert told.answer.decision_id
    (held,) = told.memberships
    assert (held.scope, held.role, held.gives, held.counts) == (ALGEBRA, "student", "student", True)
    published = next(each for each in told.facts if each.name == "published")
    assert not published.holds
    inputs = {each.name: each.value for each in published.inputs}
    assert inputs["resource.available_from"] == "2023-11-17T22:13:20Z"
    assert (inputs["resource.available_until"], inputs["resource.published"]) == ("", "true")
    assert [each.rule.effect for each in told.rules] == ["deny", "allow"]
    assert all(each.rule.source.startswith("default.csv:") for each in told.rules)
    available, staff = ([change.text for change in grant.changes] for grant in told.nearest_grants)
    assert available[0].endswith("which time alone brings about at 2023-11-17T22:13:20Z (in 3 days)")
    assert staff == ["with role `teaching_assistant`, `teacher` or `owner` in `course:algebra`"]
    assert told.allowed_from == exam.available_from
    assert told.message == "This is not open to you."


async def test_a_later_time_is_decided_by_the_records_as_they_are(sqlite_service: Service) -> None:
    service = sqlite_service
    exam = pb.Resource(type="material", id="m-1", scope=ALGEBRA, published=True)
    exam.available_from.seconds = START // 1_000_000 + 3 * DAY_S
    await written(service, COURSE, STUDENT, touch(resource=exam))
    request = explain_request(question())
    request.as_of.seconds = exam.available_from.seconds
    told = await service.authorization.Explain(request)
    assert told.answer.allowed
    assert told.decided_at == request.as_of
    assert not told.nearest_grants
    who = apb.ListSubjectsRequest(action="read", resource=request.resource, as_of=request.as_of)
    assert len((await service.authorization.ListSubjects(who)).subjects) == 1
    request.as_of.seconds -= 1
    assert not (await service.authorization.Explain(request)).answer.allowed
    who.as_of.CopyFrom(request.as_of)
    assert not (await service.authorization.ListSubjects(who)).subjects


async def test_a_long_edit_window_is_told_with_all_its_digits(sqlite_service: Service) -> None:
    course = touch(course=pb.Course(id="algebra", state=pb.COURSE_STATE_ACTIVE))
    course.course.edit_window.seconds = 30 * DAY_S
    await written(sqlite_service, course, STUDENT, MATERIAL)
    told = await sqlite_service.authorization.Explain(explain_request(question()))
    inputs = {each.name: each.value for fact in told.facts for each in fact.inputs}
    assert inputs["course.edit_window"] == "2592000 s"


async def test_the_past_is_refused_by_name(sqlite_service: Service) -> None:
    request = explain_request(question())
    request.as_of.seconds = START // 1_000_000 - 1
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await sqlite_service.authorization.Explain(request)
    assert reason_of(raised.value) == "MALFORMED_FIELD"
    assert info_of(raised.value).metadata["field"] == "as_of"


async def test_explain_and_check_agree_on_every_subject_action_and_resource(sqlite_service: Service) -> None:
    mutations = campus(random.Random(7))
    await written(sqlite_service, *mutations)
    for m in (each.resource for each in mutations if each.HasField("resource")):
        for user in USERS:
            for action in ("read", "update", "ai_process"):
                check = apb.CheckRequest(
                    subject=user, action=action, resource=apb.ResourceQuery(type=m.type, id=m.id)
                )
                answer = await sqlite_service.authorization.Check(check)
                explained = await sqlite_service.authorization.Explain(explain_request(check))
                told = explained.answer
                assert answer.message == told.message == ("" if answer.allowed else explained.message)
                assert (told.allowed, told.reason, told.rule) == (answer.allowed, answer.reason, answer.rule)
                assert told.valid_until == answer.valid_until


async def test_a_suspended_account_is_told(sqlite_service: Service) -> None:
    service = sqlite_service
    account = pb.Account(subject=MAYA, status=pb.ACCOUNT_STATUS_SUSPENDED)
    material = pb.Resource(type="material", id="m-1", scope=ALGEBRA, published=True)
    await written(service, COURSE, STUDENT, touch(resource=material), touch(account=account))
    told = await service.authorization.Explain(explain_request(question()))
    assert told.account_suspended
    assert not told.HasField("account_suspended_until")
    assert not told.restricted
    assert told.memberships[0].inactive_reason == apb.INACTIVE_REASON_SUSPENDED
    ((change,),) = (grant.changes for grant in told.nearest_grants)
    assert change.kind == apb.CHANGE_KIND_ACCOUNT
    account.suspended_until.seconds = START // 1_000_000 + DAY_S
    await written(service, touch(account=account))
    request = explain_request(question())
    told = await service.authorization.Explain(request)
    assert (told.account_suspended, told.account_suspended_until) == (True, account.suspended_until)
    request.as_of.CopyFrom(account.suspended_until)
    told = await service.authorization.Explain(request)
    assert (told.answer.allowed, told.account_suspended) == (True, False)


async def test_a_rule_of_the_course_is_told_with_its_place(
    sqlite_service: Service,
) -> None:
    service = sqlite_service
    await written(service, COURSE, STUDENT, MATERIAL, *OTHER)
    await applied_in(service, CLOSES)
    told = await service.authorization.Explain(explain_request(question()))
    assert (told.answer.reason, told.answer.course_policy_version) == (apb.REASON_EXPLICIT_DENY, "1")
    assert "course.csv:1" in {each.rule.source for each in told.rules if each.matches}
    assert not told.nearest_grants  # a deny is absolute: more roles do not help a student
    there = await service.authorization.Explain(explain_request(question(resource_id="c-1")))
    assert there.answer.allowed


async def test_a_course_or_a_session_that_is_stated_and_not_registered_is_told(
    sqlite_service: Service,
) -> None:
    service = sqlite_service
    await written(service, COURSE, STUDENT, MATERIAL)
    described = apb.InlineResource(scope=pb.Scope(course_id="alg"))
    for course_id, session_id, inline, told in (
        ("algebra", "", None, []),
        ("course:algebra", "", None, [pb.Scope(course_id="course:algebra")]),
        ("alg", "monday", None, [pb.Scope(course_id="alg"), pb.Scope(session_id="monday")]),
        ("alg", "", described, [pb.Scope(course_id="alg")]),
    ):
        request = explain_request(question(resource_id="m-1" if inline is None else "x"))
        request.resource.course_id, request.resource.session_id = course_id, session_id
        if inline is not None:
            request.resource.inline.CopyFrom(inline)
        found = await service.authorization.Explain(request)
        assert list(found.unregistered_scopes) == told
        assert found.answer.allowed is not bool(told)
    request = explain_request(question())
    request.resource.course_id = "drama"
    token = await written(service, touch(course=pb.Course(id="drama", state=pb.COURSE_STATE_ACTIVE)))
    request.consistency.at_least_as_fresh.CopyFrom(token)
    request.as_of.seconds = START // 1_000_000
    service.now += DAY_S * 1_000_000
    # The past has the records of the course of the resource alone.
    assert not (await service.authorization.Explain(request)).unregistered_scopes
