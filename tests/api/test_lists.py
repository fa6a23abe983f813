"""The lists over a real channel: what Check allows, page by page, also while writes go on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from authz.api.call import CallKind
from authz.api.endpoints import endpoints_of
from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from tests.api.test_api import COURSE, MATERIAL, STUDENT, delete, touch, written
from tests.api.test_course_policies import CLOSES, OTHER, applied_in
from tests.service import Service, info_of, reason_of

COURSES = ["algebra", "biology"]
TYPES = ["course", "material", "message", "notebook", "session", "session_note"]
USERS = [pb.Subject(type=pb.SUBJECT_TYPE_USER, id=name) for name in ("maya", "nora", "omar", "pia")]
MAYA = USERS[0]
STATES = [
    *2 * [pb.COURSE_STATE_ACTIVE],
    pb.COURSE_STATE_CONCLUDED,
    pb.COURSE_STATE_ARCHIVED,
]
STATUSES = [
    *3 * [pb.MEMBERSHIP_STATUS_ACTIVE],
    pb.MEMBERSHIP_STATUS_COMPLETED,
    pb.MEMBERSHIP_STATUS_SUSPENDED,
]
VISIBILITIES = [pb.VISIBILITY_PRIVATE, pb.VISIBILITY_COURSE]
ROLES = ["student", "teacher", "auditor"]


def scope(course: str = "", session: str = "") -> pb.Scope:
    return pb.Scope(session_id=session) if session else pb.Scope(course_id=course)


def campus(chance: random.Random) -> list[dpb.Mutation]:
    """Two courses with a session each, some members, and resources of every kind."""
    made = [
        touch(course=pb.Course(id=course, state=chance.choice(STATES), ai_enabled=True)) for course in COURSES
    ]
    made += [
        touch(session=pb.Session(id=f"s-{c}", course_id=c, open_to_course=chance.random() < 0.5))
        for c in COURSES
    ]
    homes = [*(scope(c) for c in COURSES), *(scope(session=f"s-{c}") for c in COURSES)]
    for number, home in enumerate(homes):
        for user in chance.sample(USERS, 2):
            role = chance.choice(ROLES) if home.course_id else chance.choice(["host", "attendee", "guest"])
            status = chance.choice(STATUSES)
            made.append(touch(membership=pb.Membership(subject=user, scope=home, role=role, status=status)))
        for type_name in ("material", "message", "notebook", "session_note"):
            for copy in range(3):
                made.append(
                    touch(
                        resource=pb.Resource(
                            type=type_name,
                            id=f"{type_name}-{number}-{copy}",
                            scope=home,
                            owner=chance.choice([*USERS, None]),
                            visibility=chance.choice(VISIBILITIES),
                            published=chance.random() < 0.5,
                            locked=chance.random() < 0.2,
                        )
                    )
                )
    return made


async def resources(service: Service, **fields: Any) -> list[apb.ListedResource]:
    found: list[apb.ListedResource] = []
    async for page in pages(service.authorization.ListResources, apb.ListResourcesRequest(**fields)):
        found += page.resources
    return found


async def subjects(service: Service, **fields: Any) -> list[apb.ListedSubject]:
    found: list[apb.ListedSubject] = []
    async for page in pages(service.authorization.ListSubjects, apb.ListSubjectsRequest(**fields)):
        found += page.subjects
    return found


async def pages(method: Any, request: Any) -> AsyncIterator[Any]:
    while True:
        page = await method(request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def material(number: int) -> dpb.Mutation:
    return touch(resource=pb.Resource(type="material", id=f"m{number}", scope=scope("algebra")))


def check_of(user: pb.Subject, action: str, type_name: str, id_: str) -> apb.CheckRequest:
    return apb.CheckRequest(subject=user, action=action, resource=apb.ResourceQuery(type=type_name, id=id_))


@pytest.mark.parametrize("seed", range(3))
async def test_lists_and_checks_agree_on_every_subject_action_and_resource(
    sqlite_service: Service, seed: int
) -> None:
    mutations = campus(random.Random(seed))
    await written(sqlite_service, *mutations)
    every = [(m.resource.type, m.resource.id) for m in mutations if m.HasField("resource")]
    every += [("course", m.course.id) for m in mutations if m.HasField("course")]
    every += [("session", m.session.id) for m in mutations if m.HasField("session")]
    for action in ("read", "update", "delete", "join", "manage_members", "moderate"):
        allowed: set[tuple[str, str, str]] = set()
        for user in USERS:
            items = [check_of(user, action, *each) for each in every]
            batch = await sqlite_service.authorization.BatchCheck(apb.BatchCheckRequest(items=items))
            mine = {
                each for each, r in zip(every, batch.results, strict=True) if r.response.allowed
            }  # an action that a type does not know is an error, which allows nothing
            found = await resources(sqlite_service, subject=user, action=action, page_size=7)
            assert sorted((each.type, each.id) for each in found) == sorted(mine)
            allowed |= {(user.id, *each) for each in mine}
        for type_name, id_ in every:
            asked = apb.ResourceQuery(type=type_name, id=id_)
            if (type_name, action) in {("course", "join"), ("material", "moderate")}:
                continue
            try:
                who = await subjects(sqlite_service, action=action, resource=asked, page_size=1)
            except grpc.aio.AioRpcError as error:
                assert reason_of(error) == "UNKNOWN_ACTION"
                continue
            assert sorted(each.subject.id for each in who) == sorted(
                user for user, *each in allowed if tuple(each) == (type_name, id_)
            )


async def test_a_list_goes_on_while_writes_do(service: Service) -> None:
    """What stays allowed is on exactly one page, although each page is of another revision."""
    course = touch(course=pb.Course(id="algebra", state=pb.COURSE_STATE_ACTIVE))
    member = touch(membership=pb.Membership(subject=MAYA, scope=scope("algebra"), role="teacher"))
    stays = [pb.Resource(type="material", id=f"m-{n:03}", scope=scope("algebra")) for n in range(0, 100, 2)]
    passing = [pb.Resource(type="material", id=f"m-{n:03}", scope=scope("algebra")) for n in range(1, 100, 2)]
    await written(service, course, member, *(touch(resource=each) for each in stays))
    found, states = [], set()
    request = apb.ListResourcesRequest(subject=MAYA, action="read", types=["material"], page_size=5)
    chance = random.Random(1)
    async for page in pages(service.authorization.ListResources, request):
        found += [each.id for each in page.resources]
        states.add(page.checked_at.token)
        request.consistency.at_least_as_fresh.CopyFrom(
            await written(
                service,
                *(chance.choice([touch, delete])(resource=each) for each in chance.sample(passing, 10)),
            )
        )
    assert len(found) == len(set(found))
    assert {each.id for each in stays} <= set(found)
    assert len(states) > 5


async def test_lists_follow_the_policy_of_each_course(sqlite_service: Service) -> None:
    service = sqlite_service
    await written(service, COURSE, STUDENT, MATERIAL, *OTHER)
    asked = apb.ResourceQuery(type="material", id="m-1")
    assert [each.id for each in await resources(service, **READ, types=["material"])] == ["m-1", "c-1"]
    assert [each.subject for each in await subjects(service, action="read", resource=asked)] == [MAYA]
    await applied_in(service, CLOSES)
    assert [each.id for each in await resources(service, **READ, types=["material"])] == ["c-1"]
    assert await subjects(service, action="read", resource=asked) == []


def test_lists_have_places_of_their_own() -> None:
    class Answers:
        service = apb.DESCRIPTOR.services_by_name["AuthorizationService"]

        def __getattr__(self, name: str) -> Any:
            return lambda *_: name

    kinds = {each.method.name.rpartition("/")[2]: each.method.kind for each in endpoints_of(Answers())}
    assert {name for name, kind in kinds.items() if kind is CallKind.LIST} == {
        "ListResources",
        "ListSubjects",
        "PlanResources",
    }
    assert kinds["BatchListActions"] is CallKind.BATCH
    assert kinds["Explain"] is CallKind.DECISION


@pytest.mark.asyncio(loop_scope="module")
async def test_list_subjects_says_why_nobody_may(shared_sqlite_service: Service) -> None:
    request = apb.ListSubjectsRequest(action="read", resource=apb.ResourceQuery(type="material", id="none"))
    page = await shared_sqlite_service.authorization.ListSubjects(request)
    assert (list(page.subjects), page.reason) == ([], apb.REASON_RESOURCE_UNKNOWN)


READ: dict[str, Any] = {"subject": MAYA, "action": "read"}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        ({"action": "read"}, "MISSING_FIELD", "subject"),
        ({"subject": MAYA}, "MISSING_FIELD", "action"),
        ({"subject": MAYA, "action": "raed"}, "UNKNOWN_ACTION", "did you mean `read`"),
        ({"subject": MAYA, "action": "create"}, "MALFORMED_FIELD", "ListActions"),
        ({**READ, "types": ["notebok"]}, "UNKNOWN_TYPE", "did you mean `notebook`"),
        ({**READ, "types": [""]}, "MISSING_FIELD", "types"),
        ({"subject": MAYA, "action": "join", "types": ["notebook"]}, "UNKNOWN_ACTION", "join"),
        ({**READ, "scope": pb.Scope(platform=pb.Platform())}, "MALFORMED_FIELD", "platform"),
        ({**READ, "page_size": 1001}, "MALFORMED_FIELD", "1 to 1000"),
        ({**READ, "page_token": "x"}, "MALFORMED_TOKEN", "page_token"),
        ({**READ, "types": ["course"] * 101}, "TOO_MANY_ITEMS", "100"),
    ],
)
async def test_a_bad_request_names_the_input_and_the_remedy(
    shared_sqlite_service: Service, fields: dict[str, Any], reason: str, words: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await shared_sqlite_service.authorization.ListResources(apb.ListResourcesRequest(**fields))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(raised.value) == reason
    assert words in (raised.value.details() or "")


async def test_a_page_token_belongs_to_its_list(sqlite_service: Service) -> None:
    service = sqlite_service
    await written(
        service,
        touch(course=pb.Course(id="algebra", state=pb.COURSE_STATE_ACTIVE)),
        *(touch(membership=pb.Membership(subject=u, scope=scope("algebra"), role="teacher")) for u in USERS),
        *(material(n) for n in range(3)),
    )
    of_resources = apb.ListResourcesRequest(**READ, types=["material"], page_size=1)
    token = (await service.authorization.ListResources(of_resources)).next_page_token
    of_subjects = apb.ListSubjectsRequest(
        action="read", resource=apb.ResourceQuery(type="material", id="m1"), page_size=1, page_token=token
    )
    other = apb.ListResourcesRequest(**READ, types=["course"], page_token=token)
    for method, request in (
        (service.authorization.ListSubjects, of_subjects),
        (service.authorization.ListResources, other),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await method(request)
        assert info_of(raised.value).reason == "MALFORMED_TOKEN"


async def test_actions_of_many_resources_are_those_of_each(sqlite_service: Service) -> None:
    service = sqlite_service
    mutations = campus(random.Random(3))
    await written(service, *mutations)
    items = [
        apb.ListActionsRequest(
            subject=user, resource=apb.ResourceQuery(type=m.resource.type, id=m.resource.id)
        )
        for m in mutations
        if m.HasField("resource")
        for user in USERS
    ]
    bad = apb.ListActionsRequest(subject=MAYA, resource=apb.ResourceQuery(type="quizz", id="q"))
    batch = await service.authorization.BatchListActions(apb.BatchListActionsRequest(items=[*items, bad]))
    assert len(batch.results) == len(items) + 1
    for item, result in zip(items[:40], batch.results, strict=False):
        assert result.response.actions == (await service.authorization.ListActions(item)).actions
    assert batch.results[-1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


async def test_large_lists_let_checks_through(sqlite_service: Service) -> None:
    """A list of many pages does not keep a check from being answered before it ends."""
    service = sqlite_service
    await written(
        service,
        touch(course=pb.Course(id="algebra", state=pb.COURSE_STATE_ACTIVE)),
        touch(membership=pb.Membership(subject=MAYA, scope=scope("algebra"), role="teacher")),
        *(
            touch(resource=pb.Resource(type="material", id=f"m{n}", scope=scope("algebra")))
            for n in range(900)
        ),
    )
    done: list[str] = []

    async def noted(name: str, call: Any) -> None:
        await call
        done.append(name)

    listing = apb.ListResourcesRequest(**READ, page_size=1000)
    lists = [noted("list", service.authorization.ListResources(listing)) for _ in range(8)]
    check = noted("check", service.authorization.Check(check_of(MAYA, "read", "material", "m5")))
    await asyncio.gather(*lists, check)
    assert done[-1] == "list"
