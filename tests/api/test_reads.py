"""The reads: what each filter leaves, in order of key, whole and paged."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from tests.api.test_api import MAYA, touch, written
from tests.service import Service, reason_of
from tests.tokens import state_of

OTTO = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="otto")
TUTOR = pb.Subject(type=pb.SUBJECT_TYPE_SERVICE, id="maya")
A, B = pb.Scope(course_id="a"), pb.Scope(course_id="b")
SYNC, END = pb.Subject(type=pb.SUBJECT_TYPE_SERVICE, id="sync"), Timestamp(seconds=4_000_000_000)
LIVE, PLATFORM = pb.Scope(session_id="live"), pb.Scope(platform=pb.Platform())


def member(subject: pb.Subject, scope: pb.Scope, role: str, **fields: Any) -> dpb.Mutation:
    return touch(membership=pb.Membership(subject=subject, scope=scope, role=role, **fields))


def resource(type_name: str, resource_id: str, scope: pb.Scope, **fields: Any) -> dpb.Mutation:
    return touch(resource=pb.Resource(type=type_name, id=resource_id, scope=scope, **fields))


def share(resource_id: str, subject: pb.Subject) -> dpb.Mutation:
    return touch(
        share=pb.Share(
            resource_type="notebook",
            resource_id=resource_id,
            subject=subject,
            level=pb.SHARE_LEVEL_EDITOR,
            awaits_membership=True,
        )
    )


CAMPUS = [
    touch(course=pb.Course(id="b")),
    touch(course=pb.Course(id="B", state=pb.COURSE_STATE_ARCHIVED)),
    touch(course=pb.Course(id="a", state=pb.COURSE_STATE_ACTIVE)),
    touch(session=pb.Session(id="live", course_id="a", state=pb.SESSION_STATE_LIVE)),
    touch(session=pb.Session(id="alone")),
    touch(session=pb.Session(id="later", course_id="a")),
    member(MAYA, A, "student"),
    member(MAYA, A, "teacher", source="roster"),
    member(MAYA, LIVE, "host"),
    member(OTTO, A, "student", status=pb.MEMBERSHIP_STATUS_INVITED, source="roster"),
    member(OTTO, PLATFORM, "platform_admin"),
    member(TUTOR, B, "student"),
    resource("notebook", "n-2", A, owner=MAYA),
    resource("notebook", "n-1", B, owner=OTTO),
    resource("material", "n-1", A),
    resource("session_note", "n-1", LIVE, owner=MAYA),
    share("n-2", OTTO),
    share("n-2", TUTOR),
    share("n-1", MAYA),
    touch(account=pb.Account(subject=MAYA)),
    touch(account=pb.Account(subject=TUTOR, status=pb.ACCOUNT_STATUS_SUSPENDED)),
    touch(access_token=pb.AccessToken(id="t1", subject=TUTOR, digest="0" * 64, ends_at=END)),
    touch(access_token=pb.AccessToken(id="t2", subject=SYNC, digest="1" * 64, ends_at=END)),
]


def name_of(entity: Any) -> str:
    if isinstance(entity, pb.Course | pb.Session | pb.AccessToken):
        return entity.id
    if isinstance(entity, pb.Resource):
        return f"{entity.type}:{entity.id}"
    subject = f"{'user' if entity.subject.type == pb.SUBJECT_TYPE_USER else 'service'}:{entity.subject.id}"
    if isinstance(entity, pb.Account):
        return subject
    if isinstance(entity, pb.Share):
        return f"{entity.resource_type}:{entity.resource_id} {subject}"
    scope = entity.scope.course_id or entity.scope.session_id or "platform"
    return f"{scope} {subject} {entity.role}"


ALL_MEMBERS = [
    "a user:maya student",
    "a user:maya teacher",
    "a user:otto student",
    "b service:maya student",
    "platform user:otto platform_admin",
    "live user:maya host",
]
CASES: dict[str, tuple[Any, list[str]]] = {
    "all courses, byte by byte": (dpb.ReadCoursesRequest(), ["B", "a", "b"]),
    "courses by ids": (dpb.ReadCoursesRequest(ids=["b", "a", "none"]), ["a", "b"]),
    "courses in one of two states": (
        dpb.ReadCoursesRequest(states=[pb.COURSE_STATE_DRAFT, pb.COURSE_STATE_ARCHIVED]),
        ["B", "b"],
    ),
    "courses by ids and state": (
        dpb.ReadCoursesRequest(ids=["a", "b"], states=[pb.COURSE_STATE_ACTIVE]),
        ["a"],
    ),
    "all sessions": (dpb.ReadSessionsRequest(), ["alone", "later", "live"]),
    "sessions of a course": (dpb.ReadSessionsRequest(course_id="a"), ["later", "live"]),
    "sessions in a state": (dpb.ReadSessionsRequest(states=[pb.SESSION_STATE_SCHEDULED]), ["alone", "later"]),
    "sessions by id": (dpb.ReadSessionsRequest(ids=["live"], course_id="a"), ["live"]),
    "all memberships": (dpb.ReadMembershipsRequest(), ALL_MEMBERS),
    "memberships of a user": (
        dpb.ReadMembershipsRequest(subject=MAYA),
        ["a user:maya student", "a user:maya teacher", "live user:maya host"],
    ),
    "memberships of a service of the same id": (
        dpb.ReadMembershipsRequest(subject=TUTOR),
        ["b service:maya student"],
    ),
    "memberships of the platform": (
        dpb.ReadMembershipsRequest(scope=PLATFORM),
        ["platform user:otto platform_admin"],
    ),
    "memberships in a course with a role": (
        dpb.ReadMembershipsRequest(scope=A, role="student"),
        ["a user:maya student", "a user:otto student"],
    ),
    "memberships with a status": (
        dpb.ReadMembershipsRequest(statuses=[pb.MEMBERSHIP_STATUS_INVITED]),
        ["a user:otto student"],
    ),
    "memberships from a source": (
        dpb.ReadMembershipsRequest(source="roster"),
        ["a user:maya teacher", "a user:otto student"],
    ),
    "all resources": (
        dpb.ReadResourcesRequest(),
        ["material:n-1", "notebook:n-1", "notebook:n-2", "session_note:n-1"],
    ),
    "resources of a type": (dpb.ReadResourcesRequest(type="notebook"), ["notebook:n-1", "notebook:n-2"]),
    "resources of a type by id": (dpb.ReadResourcesRequest(type="notebook", ids=["n-1"]), ["notebook:n-1"]),
    "resources in a course, not in its sessions": (
        dpb.ReadResourcesRequest(scope=A),
        ["material:n-1", "notebook:n-2"],
    ),
    "resources of an owner": (dpb.ReadResourcesRequest(owner=MAYA), ["notebook:n-2", "session_note:n-1"]),
    "all shares": (
        dpb.ReadSharesRequest(),
        ["notebook:n-1 user:maya", "notebook:n-2 service:maya", "notebook:n-2 user:otto"],
    ),
    "shares of a resource": (
        dpb.ReadSharesRequest(resource_type="notebook", resource_id="n-1"),
        ["notebook:n-1 user:maya"],
    ),
    "shares with a subject": (dpb.ReadSharesRequest(subject=OTTO), ["notebook:n-2 user:otto"]),
    "all accounts": (dpb.ReadAccountsRequest(), ["service:maya", "user:maya"]),
    "the account of a subject": (dpb.ReadAccountsRequest(subject=MAYA), ["user:maya"]),
    "all access tokens": (dpb.ReadAccessTokensRequest(), ["t1", "t2"]),
    "the access tokens of a service": (dpb.ReadAccessTokensRequest(subject=TUTOR), ["t1"]),
    "suspended accounts": (
        dpb.ReadAccountsRequest(statuses=[pb.ACCOUNT_STATUS_SUSPENDED]),
        ["service:maya"],
    ),
}
FIELDS = {"Courses": "courses", "Sessions": "sessions", "Memberships": "memberships"}
FIELDS |= {"Resources": "resources", "Shares": "shares", "Accounts": "accounts"}
FIELDS |= {"AccessTokens": "access_tokens"}


async def page(service: Service, request: Any) -> tuple[list[str], Any]:
    kind = type(request).__name__.removeprefix("Read").removesuffix("Request")
    response = await getattr(service.directory, f"Read{kind}")(request)
    return [name_of(entity) for entity in getattr(response, FIELDS[kind])], response


async def test_each_filter_leaves_what_it_says_in_pages_of_any_size(service: Service) -> None:
    token = await written(service, *CAMPUS)
    for sentence, (asked, expected) in CASES.items():
        names, response = await page(service, asked)
        assert names == expected, sentence
        assert (response.next_page_token, response.read_at) == ("", token)
        for size in (1, 2, 1000):
            request = type(asked)()
            request.CopyFrom(asked)
            request.page_size = size
            seen: list[str] = []
            while True:
                names, response = await page(service, request)
                assert len(names) == min(size, len(expected) - len(seen)), sentence
                seen += names
                request.page_token = response.next_page_token
                if not request.page_token:
                    break
            assert seen == expected, sentence


async def test_what_is_read_is_what_was_written_with_its_version(service: Service) -> None:
    revision = state_of((await written(service, *CAMPUS)).token).revision
    course = (await service.directory.ReadCourses(dpb.ReadCoursesRequest(ids=["a"]))).courses[0]
    assert (course.state, course.edit_window.seconds, course.revision) == (
        pb.COURSE_STATE_ACTIVE,
        900,
        revision,
    )
    for request, kind in (
        (dpb.ReadSessionsRequest(), "session"),
        (dpb.ReadMembershipsRequest(), "membership"),
        (dpb.ReadResourcesRequest(), "resource"),
        (dpb.ReadSharesRequest(), "share"),
        (dpb.ReadAccountsRequest(), "account"),
        (dpb.ReadAccessTokensRequest(), "access_token"),
    ):
        _, response = await page(service, request)
        plural = f"{kind}s"
        again = [touch(**{kind: entity}) for entity in getattr(response, plural)]
        assert (await written(service, *again)) == response.read_at


async def test_a_page_token_belongs_to_its_filters(sqlite_service: Service) -> None:
    await written(sqlite_service, *CAMPUS)
    _, response = await page(sqlite_service, dpb.ReadMembershipsRequest(subject=MAYA, page_size=1))
    for request in (
        dpb.ReadMembershipsRequest(subject=OTTO, page_token=response.next_page_token),
        dpb.ReadCoursesRequest(page_token=response.next_page_token),
        dpb.ReadCoursesRequest(page_token=response.read_at.token),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await page(sqlite_service, request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert reason_of(caught.value) == "MALFORMED_TOKEN"
        assert "page_token" in str(caught.value.details())
