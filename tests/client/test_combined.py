"""Live sessions and AI requests through both clients, and the meeting token that a decision becomes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any

import msgspec
import pytest

from authz.client import Client, InvalidArgumentError, ItemFault
from authz.client.aio.live import access_changes as async_access_changes
from authz.client.daily import meeting_token_properties
from authz.client.sync.live import access_changes
from authz.domain.entities import (
    Account,
    AccountStatus,
    Course,
    CourseKey,
    CourseState,
    Membership,
    Resource,
    Session,
    SessionState,
)
from authz.domain.ids import course_scope, parse_subject, session_scope
from authz.domain.instants import from_datetime
from authz.domain.mutations import Mutation, Operation, update
from tests.client.conftest import Blocking, Connect
from tests.serving import served

ALGEBRA, MONDAY = course_scope("algebra"), session_scope("monday")
MAYA, OMAR, GITA = map(parse_subject, ("user:maya", "user:omar", "user:gita"))
NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
HOUR = dt.timedelta(hours=1)
STUDENT = Membership(subject=MAYA, scope=ALGEBRA, role="student")
CAMPUS = (
    Course(id="algebra", state=CourseState.ACTIVE, ai_enabled=True),
    Session(
        id="monday",
        course_id="algebra",
        state=SessionState.LIVE,
        open_to_course=True,
        ends_at=from_datetime(NOW + 2 * HOUR),
    ),
    STUDENT,
    Membership(subject=OMAR, scope=ALGEBRA, role="teacher"),
    Membership(subject=GITA, scope=MONDAY, role="guest"),
    Resource(type="notebook", id="hers", scope=ALGEBRA, owner=MAYA, ai_allowed=True),
    Resource(type="notebook", id="his", scope=ALGEBRA, owner=OMAR, ai_allowed=True),
)


@pytest.fixture
def client(sqlite_url: str, connect: Connect) -> Iterator[Client]:
    """A client of a service with a live session."""
    with served(sqlite_url) as address, connect(address) as client:
        client.write([Mutation(Operation.CREATE, entity) for entity in CAMPUS])
        yield client


def test_a_session_is_entered_with_the_rights_of_the_role(client: Client) -> None:
    student = client.authorize_session("user:maya", "monday")
    teacher = client.authorize_session(OMAR, "monday")
    stranger = client.authorize_session("user:nobody", "monday")
    assert (bool(student), bool(teacher), bool(stranger)) == (True, True, False)
    assert (student.may_present, student.may_moderate, student.may_record) == (False, False, False)
    assert (teacher.may_present, teacher.may_moderate, teacher.may_record) == (True, True, True)
    assert (student.course_id, student.ends_at) == ("algebra", NOW + 2 * HOUR)
    assert stranger.join.reason == "NOT_A_MEMBER"


def test_an_ai_response_is_made_from_what_the_asker_may_use(client: Client) -> None:
    hers, his, wrong = client.authorize_sources("user:maya", ["notebook:hers", "notebook:his", "notebok:x"])
    assert (bool(hers), bool(his), bool(wrong)) == (True, False, False)
    assert (his.resource, his.denied_action) == ("notebook:his", "read")
    assert isinstance(wrong.answer, ItemFault)


def test_a_change_that_concerns_somebody_present_is_told(client: Client) -> None:
    present = {"monday": ["user:maya", "user:omar", "user:gita"], "other": ["user:maya"]}
    follow: Any = async_access_changes if isinstance(client, Blocking) else access_changes
    token = client.current_token()
    client.write([Mutation(Operation.CREATE, Resource(type="notebook", id="new", scope=ALGEBRA, owner=MAYA))])
    client.write([Mutation(Operation.DELETE, STUDENT.key)])
    client.write([Mutation(Operation.TOUCH, Account(subject=OMAR, status=AccountStatus.SUSPENDED))])
    client.write([update(CourseKey("algebra"), state=CourseState.ARCHIVED)])
    if isinstance(client, Blocking):
        changes = client.items(follow(client.wrapped, lambda: present, after=token))
    else:
        changes = follow(client, lambda: present, after=token)
    with closing(changes):
        told = [(each.session_id, each.subject, bool(each)) for each in islice(changes, 7)]
    assert told[:3] == [
        ("monday", "user:maya", False),
        ("other", "user:maya", False),
        ("monday", "user:omar", False),
    ]
    # The course of a session is known only from somebody who may join it.
    assert {(session, subject) for session, subject, _ in told[3:]} == {
        (session, subject) for session, subjects in present.items() for subject in subjects
    }


def test_a_change_of_another_course_concerns_nobody_whose_course_is_known(client: Client) -> None:
    follow: Any = async_access_changes if isinstance(client, Blocking) else access_changes
    alone = Session(id="alone", state=SessionState.LIVE)
    host = Membership(subject=OMAR, scope=session_scope("alone"), role="host")
    client.write([Mutation(Operation.CREATE, each) for each in (alone, host)])
    token = client.current_token()
    poetry = Course(id="poetry", state=CourseState.ACTIVE)
    client.write([Mutation(Operation.CREATE, poetry)])
    client.write([update(poetry.key, ai_enabled=True)])
    client.write([Mutation(Operation.CREATE, Account(subject=GITA, status=AccountStatus.SUSPENDED))])
    present = {"monday": ["user:maya", "user:gita"], "alone": ["user:omar"]}
    if isinstance(client, Blocking):
        changes = client.items(follow(client.wrapped, lambda: present, after=token))
    else:
        changes = follow(client, lambda: present, after=token)
    with closing(changes):
        told = [(each.session_id, each.subject, bool(each)) for each in islice(changes, 4)]
    # The first change of the course asks about everybody, the second about nobody.
    assert told == [
        ("monday", "user:maya", True),
        ("monday", "user:gita", False),
        ("alone", "user:omar", True),
        ("monday", "user:gita", False),
    ]


def test_who_is_present_is_named_with_a_type_or_parsed(client: Client) -> None:
    follow: Any = async_access_changes if isinstance(client, Blocking) else access_changes
    token = client.current_token()
    client.write([Mutation(Operation.DELETE, STUDENT.key)])

    def first_change(present: Any) -> Any:
        if isinstance(client, Blocking):
            changes = client.items(follow(client.wrapped, lambda: present, after=token))
        else:
            changes = follow(client, lambda: present, after=token)
        with closing(changes):
            return next(changes)

    told = first_change({"monday": [MAYA]})
    assert (told.subject, bool(told)) == ("user:maya", False)
    with pytest.raises(InvalidArgumentError, match="write it like `user:maya`"):
        first_change({"monday": ["maya"]})  # as a meeting token names her


def test_a_meeting_token_ends_with_the_decision_and_is_for_one_room(client: Client) -> None:
    student = client.authorize_session("user:maya", "monday")
    properties = meeting_token_properties(student, room="algebra-monday", now=NOW, max_lifetime=HOUR)
    assert properties == {
        "room_name": "algebra-monday",
        "user_id": "maya",
        "exp": int((NOW + HOUR).timestamp()),
        "eject_at_token_exp": True,
        "is_owner": False,
        "enable_screenshare": False,
        "permissions": {"canSend": False, "canAdmin": False},
    }
    teacher = client.authorize_session("user:omar", "monday")
    longer = meeting_token_properties(
        teacher, room="algebra-monday", now=NOW, max_lifetime=8 * HOUR, user_name="Omar"
    )
    assert longer["exp"] == int((NOW + 2 * HOUR).timestamp())  # the end of the session
    assert longer["permissions"] == {
        "canSend": ["video", "audio", "screenVideo", "screenAudio"],
        "canAdmin": ["participants"],
    }
    assert (longer["enable_recording"], longer["is_owner"], longer["user_name"]) == ("cloud", False, "Omar")
    soon = msgspec.structs.replace(student, valid_until=NOW + HOUR / 60)
    ends = meeting_token_properties(soon, room="r", now=NOW, max_lifetime=HOUR)["exp"]
    assert ends == int((NOW + HOUR / 60).timestamp())
    endless = msgspec.structs.replace(student, ends_at=None, valid_until=None)
    begun = dt.datetime.now(dt.UTC)
    ends = meeting_token_properties(endless, room="r", max_lifetime=HOUR)["exp"]
    assert int((begun + HOUR).timestamp()) <= ends <= (dt.datetime.now(dt.UTC) + HOUR).timestamp()


def test_no_meeting_token_without_a_right_a_room_or_time(client: Client) -> None:
    stranger = client.authorize_session("user:nobody", "monday")
    with pytest.raises(InvalidArgumentError, match="may not join monday: NOT_A_MEMBER"):
        meeting_token_properties(stranger, room="r", now=NOW, max_lifetime=HOUR)
    student = client.authorize_session("user:maya", "monday")
    with pytest.raises(InvalidArgumentError, match="opens every room"):
        meeting_token_properties(student, room="", now=NOW, max_lifetime=HOUR)
    with pytest.raises(InvalidArgumentError, match="is over"):
        meeting_token_properties(student, room="r", now=NOW + 3 * HOUR, max_lifetime=HOUR)
    for too_short in (HOUR * 0, -HOUR, HOUR / 3601):
        with pytest.raises(InvalidArgumentError, match=r"^max_lifetime is"):
            meeting_token_properties(student, room="r", now=NOW, max_lifetime=too_short)
    with pytest.raises(InvalidArgumentError, match="a datetime with a time zone"):
        meeting_token_properties(student, room="r", now=NOW.replace(tzinfo=None), max_lifetime=HOUR)
