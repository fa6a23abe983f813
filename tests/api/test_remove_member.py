"""RemoveMember: one call, and a person has nothing left in a course and all that is in it."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from authz.client import Client
from authz.client.errors import CallError
from authz.domain.entities import (
    Course,
    CourseState,
    Entity,
    Membership,
    MembershipFilter,
    Resource,
    ResourceFilter,
    Session,
    Share,
    ShareFilter,
    ShareLevel,
    Visibility,
)
from authz.domain.ids import PLATFORM, ResourceRef, Scope, course_scope, session_scope
from authz.domain.mutations import Mutation, Operation
from tests.serving import served
from tests.store.directory import changes_of, open_with, user

MAYA, OMAR = user("maya"), user("omar")
SESSIONS = 700
"""More than a revision removes."""


def there(subject: str, course_id: str, session_id: str) -> Iterator[Entity]:
    """What somebody has in a course and in a session of it."""
    who, course, session = user(subject), course_scope(course_id), session_scope(session_id)
    yield Membership(subject=who, scope=course, role="student")
    yield Membership(subject=who, scope=course, role="auditor")
    yield Membership(subject=who, scope=session, role="guest")
    yield Resource(type="notebook", id=f"of-{subject}-in-{course_id}", scope=course, owner=who)
    for scope in (course, session):
        ref = ResourceRef("notebook", f"in-{scope.id}")
        yield Share(resource=ref, subject=who, level=ShareLevel.VIEWER, awaits_membership=scope == course)


def notebook(scope: Scope) -> Resource:
    """A notebook named after the scope that it is in."""
    return Resource(type="notebook", id=f"in-{scope.id}", scope=scope, visibility=Visibility.COURSE)


@pytest.fixture
def client(store_url: str) -> Iterator[Client]:
    """Maya and Omar are in the courses `c` and `d`."""
    with (
        served(store_url) as address,
        Client(address, timeout_s=60) as opened,
    ):
        entities: list[Entity] = []
        for course_id, session_id in (("c", "s"), ("d", "t")):
            entities += [
                Course(id=course_id, state=CourseState.ACTIVE),
                Session(id=session_id, course_id=course_id),
            ]
            entities += map(notebook, (course_scope(course_id), session_scope(session_id)))
            entities += [*there("maya", course_id, session_id), *there("omar", course_id, session_id)]
        opened.write(Mutation(Operation.CREATE, entity) for entity in entities)
        yield opened


def held(client: Client, subject: str) -> list[str]:
    """The memberships of a subject and what is shared with it."""
    memberships = [str(each.entity.key) for each in client.read(MembershipFilter(subject=user(subject)))]
    return memberships + [str(each.entity.key) for each in client.read(ShareFilter(subject=user(subject)))]


def test_who_is_removed_has_nothing_left_there_and_all_elsewhere(client: Client) -> None:
    omar, owned = held(client, "omar"), [each.entity for each in client.read(ResourceFilter(owner=MAYA))]
    assert client.check("user:maya", "read", "notebook:in-s")
    client.remove_member(MAYA, course_scope("c"), reason="asked to")
    answer = client.check("user:maya", "read", "notebook:in-s")
    assert (answer.allowed, answer.reason) == (False, "NOT_A_MEMBER")
    assert held(client, "maya") == [
        "membership user:maya auditor in course:d",
        "membership user:maya student in course:d",
        "membership user:maya guest in session:t",
        "share of notebook:in-d with user:maya",
        "share of notebook:in-t with user:maya",
    ]
    assert held(client, "omar") == omar
    assert [each.entity for each in client.read(ResourceFilter(owner=MAYA))] == owned


def test_who_is_removed_from_a_session_stays_in_its_course(client: Client) -> None:
    client.remove_member(MAYA, session_scope("s"))
    assert [each for each in held(client, "maya") if ":s" in each or "in-s" in each] == []
    assert len(held(client, "maya")) == 8


def test_a_host_removes_from_a_session_nobody_who_is_above_in_its_course(client: Client) -> None:
    """What is shared with them there ends with a removal, and they may have no role in the session itself."""
    ref, tess = ResourceRef("notebook", "in-s"), user("tess")
    client.write(
        Mutation(Operation.CREATE, entity)
        for entity in (
            Membership(subject=user("hana"), scope=session_scope("s"), role="host"),
            Membership(subject=tess, scope=course_scope("c"), role="teacher"),
            Share(resource=ref, subject=tess, level=ShareLevel.EDITOR),
        )
    )
    host = client.with_options(acting_for="user:hana")
    with pytest.raises(CallError, match="may not give or take `teacher` in course:c") as caught:
        host.remove_member(tess, session_scope("s"))
    assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
    assert client.check(tess, "update", ref)
    host.remove_member(MAYA, session_scope("s"))
    assert f"share of {ref} with {MAYA}" not in held(client, "maya")


def test_a_removal_of_who_is_not_there_changes_nothing(client: Client) -> None:
    token = client.current_token()
    assert client.remove_member(user("nobody"), course_scope("c")) == token
    assert client.remove_member(MAYA, course_scope("none")) == token


def test_the_platform_is_no_course(client: Client) -> None:
    with pytest.raises(CallError, match="scope is the platform; name a course or a session") as caught:
        client.remove_member(MAYA, PLATFORM)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_large_removal_is_complete_when_it_is_answered_and_its_revisions_are_bounded(
    client: Client, store_url: str
) -> None:
    for make in (
        lambda n: Session(id=f"s{n}", course_id="c"),
        lambda n: Membership(subject=MAYA, scope=session_scope(f"s{n}"), role="guest"),
        lambda n: notebook(session_scope(f"s{n}")),
        lambda n: Share(resource=ResourceRef("notebook", f"in-s{n}"), subject=MAYA, level=ShareLevel.VIEWER),
    ):
        client.write(Mutation(Operation.CREATE, make(n)) for n in range(SESSIONS))
    store = open_with(store_url)
    head = store.directory.head().revision
    client.remove_member(MAYA, course_scope("c"), reason="asked to")
    assert len(held(client, "maya")) == 5
    log = changes_of(store, head, 100)
    store.close()
    assert sum(len(change.mutations) for change in log) == 2 * SESSIONS + 5
    assert all(len(change.mutations) <= 500 for change in log)
    assert {change.reason for change in log} == {"asked to"}
    client.write(
        [Mutation(Operation.CREATE, Membership(subject=MAYA, scope=course_scope("c"), role="student"))]
    )
    assert len(held(client, "maya")) == 6
