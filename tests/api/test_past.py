"""Questions about the past are answered as they were answered then."""

from __future__ import annotations

import random
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import delete as sql_delete

from authz.store import tables
from authz.store.database.engine import open_engine, write_transaction
from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from tests.api.test_api import COURSE, MATERIAL, STUDENT, delete, question, touch, written
from tests.api.test_course_policies import CLOSES, applied_in
from tests.api.test_lists import COURSES, ROLES, STATES, STATUSES, USERS, VISIBILITIES, scope
from tests.api.test_policies import applied
from tests.policies import SHIPPED
from tests.properties import LONG
from tests.service import START, Service, info_of, reason_of

STEP_US = 60_000_000
ROUNDS = 600 if LONG else 50
HOMES = [*(scope(course) for course in COURSES), *(scope(session=f"s-{course}") for course in COURSES)]
NAMES = [("notebook", f"n{number}") for number in range(3)] + [
    ("material", f"m{number}") for number in range(3)
]
DENIES = "p, *, course:algebra, notebook, read, , deny"


def time_of(now: int) -> Timestamp:
    return Timestamp(seconds=now // 1_000_000, nanos=now % 1_000_000 * 1000)


def change(chance: random.Random) -> dpb.Mutation:
    """One write of any kind; it may be refused."""
    home, user = chance.choice(HOMES), chance.choice(USERS)
    role = chance.choice(ROLES) if home.course_id else chance.choice(["host", "attendee", "guest"])
    type_name, id_ = chance.choice(NAMES)
    course = chance.choice(COURSES)
    kind = chance.choice(["course", "session", *5 * ["membership"], *3 * ["resource"], "share", "account"])
    make = delete if chance.random() < (0.1 if kind in ("course", "session") else 0.3) else touch
    records: dict[str, Any] = {
        "course": pb.Course(id=course, state=chance.choice(STATES)),
        "session": pb.Session(id=f"s-{course}", course_id=course, open_to_course=chance.random() < 0.5),
        "membership": pb.Membership(subject=user, scope=home, role=role, status=chance.choice(STATUSES)),
        "resource": pb.Resource(
            type=type_name,
            id=id_,
            scope=home,
            owner=chance.choice([*USERS, None]),
            visibility=chance.choice(VISIBILITIES),
            published=chance.random() < 0.5,
        ),
        "share": pb.Share(
            resource_type="notebook", resource_id="n0", subject=user, level=pb.SHARE_LEVEL_VIEWER
        ),
        "account": pb.Account(
            subject=user,
            status=chance.choice([pb.ACCOUNT_STATUS_ACTIVE, pb.ACCOUNT_STATUS_SUSPENDED]),
        ),
    }
    return make(**{kind: records[kind]})


async def who(service: Service, check: apb.CheckRequest, as_of: Timestamp | None = None) -> Any:
    request = apb.ListSubjectsRequest(
        action=check.action, resource=check.resource, page_size=1000, as_of=as_of
    )
    return await service.authorization.ListSubjects(request)


def comparable(answer: apb.CheckResponse) -> apb.CheckResponse:
    answer.ClearField("decision_id")
    return answer


async def test_a_random_history_is_answered_as_it_was_then(service: Service) -> None:
    chance = random.Random(5)
    await written(service, *(touch(course=pb.Course(id=course, state=STATES[0])) for course in COURSES))
    asked = []
    made = 0
    for number in range(ROUNDS):
        service.now += STEP_US
        if number in (ROUNDS // 3, ROUNDS * 2 // 3):
            await written(service, COURSE)
            await applied_in(service, DENIES if number == ROUNDS // 3 else CLOSES)
        for mutation in (change(chance) for _ in range(3)):
            try:
                await written(service, mutation)
            except grpc.aio.AioRpcError as error:
                assert error.code() is not grpc.StatusCode.UNAVAILABLE, error.details()
            else:
                made += 1
        if number % 3 == 0:
            type_name, id_ = chance.choice([*NAMES, ("course", "algebra"), ("session", "s-algebra")])
            check = apb.CheckRequest(
                subject=chance.choice(USERS),
                action="read",
                resource=apb.ResourceQuery(type=type_name, id=id_),
                consistency=pb.Consistency(fully_consistent=True),
            )
            listed = await who(service, check)
            answer = comparable(await service.authorization.Check(check))
            asked.append((service.now, check, answer, [each.subject.id for each in listed.subjects]))
    assert made > ROUNDS * 4 // 3
    assert {answer.reason for _, _, answer, _ in asked} >= {
        apb.REASON_ROLE_GRANT,
        apb.REASON_NOT_A_MEMBER,
        apb.REASON_RESOURCE_UNKNOWN,
    }
    for now, check, answer, subjects in asked:
        request = apb.ExplainRequest(
            subject=check.subject, action=check.action, resource=check.resource, as_of=time_of(now)
        )
        told = await service.authorization.Explain(request)
        assert comparable(told.answer) == answer
        assert told.decided_at == time_of(now)
        then = await who(service, check, time_of(now))
        assert [each.subject.id for each in then.subjects] == subjects
        assert then.checked_at == answer.checked_at


@pytest.mark.parametrize(("then", "now"), [("algebra", ""), ("", "algebra"), ("algebra", "poetry")])
async def test_a_session_that_was_made_again_elsewhere_is_answered_where_it_was(
    sqlite_service: Service, then: str, now: str
) -> None:
    user, home = USERS[0], scope(session="s-1")
    records = [
        touch(membership=pb.Membership(subject=user, scope=home, role="host")),
        touch(resource=pb.Resource(type="session_note", id="n0", scope=home, owner=user)),
    ]
    courses = [touch(course=pb.Course(id=course, state=STATES[0])) for course in ("algebra", "poetry")]
    await written(sqlite_service, *courses)
    await written(sqlite_service, touch(session=pb.Session(id="s-1", course_id=then)), *records)
    as_of = time_of(sqlite_service.now)
    sqlite_service.now += STEP_US
    await written(sqlite_service, delete(session=pb.Session(id="s-1")))
    await written(sqlite_service, touch(session=pb.Session(id="s-1", course_id=now)), records[1])
    for type_name, id_ in (("session", "s-1"), ("session_note", "n0")):
        resource = apb.ResourceQuery(type=type_name, id=id_)
        request = apb.ExplainRequest(subject=user, action="read", resource=resource, as_of=as_of)
        told = await sqlite_service.authorization.Explain(request)
        assert (told.answer.reason, [each.course_id for each in told.scopes if each.course_id]) == (
            apb.REASON_ROLE_GRANT,
            [then] if then else [],
        )


async def test_who_was_removed_since_could_read_it_then(service: Service) -> None:
    await written(service, COURSE, STUDENT, MATERIAL)
    before = time_of(service.now)
    service.now += STEP_US
    await applied_in(service, CLOSES)
    await written(service, delete(membership=STUDENT.membership))
    await written(service, delete(resource=MATERIAL.resource))
    check = question()
    then = await who(service, check, before)
    assert [each.subject.id for each in then.subjects] == ["maya"]
    assert (then.policy_version, list((await who(service, check)).subjects)) == ("1", [])


async def test_the_past_is_decided_by_the_policy_that_was_active_then(sqlite_service: Service) -> None:
    service = sqlite_service
    draft = touch(resource=pb.Resource(type="material", id="m-1", scope=STUDENT.membership.scope))
    await written(service, COURSE, STUDENT, draft)
    closed = {name: text for name, text in SHIPPED.items() if not name.startswith("tests/")}
    closed["default.csv"] += "p, student, *, material, read, !published, deny\n"
    times = []
    for files in (closed, SHIPPED):
        times.append(time_of(service.now))
        service.now += STEP_US
        await applied(service, files)
    times.append(time_of(service.now))
    subject, resource = STUDENT.membership.subject, question().resource
    request = apb.ExplainRequest(subject=subject, action="read", resource=resource)
    told = []
    for request_time in times:
        request.as_of.CopyFrom(request_time)
        answer = (await service.authorization.Explain(request)).answer
        told.append((answer.policy_version, answer.reason))
    assert told == [
        ("1", apb.REASON_CONDITION_NOT_MET),
        ("2", apb.REASON_EXPLICIT_DENY),
        ("3", apb.REASON_CONDITION_NOT_MET),
    ]


async def test_a_list_of_later_is_by_the_records_as_they_are(sqlite_service: Service) -> None:
    service = sqlite_service
    member = pb.Membership(subject=STUDENT.membership.subject, scope=STUDENT.membership.scope, role="student")
    member.ends_at.seconds = START // 1_000_000 + 600
    await written(service, COURSE, touch(membership=member), MATERIAL)
    later = time_of(service.now + 700_000_000)
    assert [each.subject.id for each in (await who(service, question())).subjects] == ["maya"]
    assert list((await who(service, question(), later)).subjects) == []


async def test_a_page_of_the_past_is_followed_by_the_next(sqlite_service: Service) -> None:
    members = [
        touch(
            membership=pb.Membership(
                subject=pb.Subject(type=pb.SUBJECT_TYPE_USER, id=f"u{number}"),
                scope=scope("algebra"),
                role="student",
            )
        )
        for number in range(7)
    ]
    await written(sqlite_service, COURSE, MATERIAL, *members)
    request = apb.ListSubjectsRequest(
        action="read", resource=question().resource, page_size=3, as_of=time_of(sqlite_service.now)
    )
    sqlite_service.now += STEP_US
    await written(sqlite_service, delete(course=COURSE.course))
    found: list[str] = []
    while True:
        page = await sqlite_service.authorization.ListSubjects(request)
        found += [each.subject.id for each in page.subjects]
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert found == [f"u{number}" for number in range(7)]


async def test_what_the_past_cannot_answer_is_said(sqlite_service: Service, sqlite_url: str) -> None:
    await written(sqlite_service, COURSE, STUDENT, MATERIAL)
    then = time_of(sqlite_service.now)
    sqlite_service.now += STEP_US
    request = apb.ExplainRequest(
        subject=STUDENT.membership.subject, action="read", resource=question().resource
    )
    request.as_of.seconds = START // 1_000_000 - 100_000_000
    with pytest.raises(grpc.aio.AioRpcError, match="no policy was active") as early:
        await sqlite_service.authorization.Explain(request)
    assert info_of(early.value).metadata["field"] == "as_of"
    request.as_of.CopyFrom(then)
    engine = open_engine(sqlite_url)
    with write_transaction(engine) as connection:
        for table in (tables.changes, tables.revisions):
            connection.execute(sql_delete(table).where(table.c.revision == 1))
    engine.dispose()
    with pytest.raises(grpc.aio.AioRpcError, match="no longer reaches back") as trimmed:
        await sqlite_service.authorization.Explain(request)
    assert reason_of(trimmed.value) == "TOKEN_EXPIRED"
