"""A server that is killed while it removes a large course continues, and nobody gets back in."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from authz.client import Client
from authz.client.errors import CallError
from authz.domain.entities import (
    Course,
    CourseKey,
    CourseState,
    Entity,
    Membership,
    MembershipFilter,
    Resource,
    ResourceFilter,
    Session,
    SessionFilter,
    Share,
    ShareFilter,
    ShareLevel,
    Visibility,
)
from authz.domain.ids import ResourceRef, Scope, course_scope, session_scope
from authz.domain.mutations import Mutation, Operation
from authz.store import Store
from tests.faults.processes import Node, running
from tests.properties import LONG
from tests.replica.conftest import generation_of, rows_of
from tests.replica.test_agreement import expected, tombstones
from tests.serving import over_grpc
from tests.store.directory import changes_of, dumped, open_with, user
from tests.waiting import until

pytestmark = over_grpc

MEMBERS = 20_000 if LONG else 6_000
SESSIONS = 5
KILLS = 4 if LONG else 2
BOUND = 500
"""How many records a revision may delete besides the one that was named."""


def notebook(name: str, scope: Scope) -> Resource:
    """A notebook that everybody in its course may read."""
    return Resource(type="notebook", id=name, scope=scope, visibility=Visibility.COURSE)


def large_course() -> Iterator[Entity]:
    """A course with many members, with sessions that have members, a notebook and its shares themselves."""
    yield Course(id="c", state=CourseState.ACTIVE)
    yield from (Session(id=f"s{n}", course_id="c") for n in range(SESSIONS))
    yield from (
        Membership(subject=user(f"u{n}"), scope=course_scope("c"), role="student") for n in range(MEMBERS)
    )
    for n in range(SESSIONS):
        scope = session_scope(f"s{n}")
        yield notebook(f"in-s{n}", scope)
        for subject in map(user, ("u0", f"v{n}", f"g{n}")):
            yield Membership(subject=subject, scope=scope, role="guest")
            yield Share(
                resource=ResourceRef("notebook", f"in-s{n}"), subject=subject, level=ShareLevel.VIEWER
            )
    yield notebook("in-c", course_scope("c"))


def create(entity: Entity) -> Mutation:
    """CREATE."""
    return Mutation(Operation.CREATE, entity)


def require_gone(client: Client) -> None:
    """Nothing of the course answers."""
    for name in ("in-c", *(f"in-s{n}" for n in range(SESSIONS))):
        answer = client.check("user:u0", "read", f"notebook:{name}")
        assert (answer.allowed, answer.reason) == (False, "RESOURCE_UNKNOWN")
    for scope in (course_scope("c"), *(session_scope(f"s{n}") for n in range(SESSIONS))):
        assert not [*client.read(MembershipFilter(scope=scope))]
    assert not [*client.read(MembershipFilter(subject=user("u0")))]
    assert not [*client.read(SessionFilter(course_id="c"))]
    assert not [*client.read(ResourceFilter())]
    assert not [*client.read(ShareFilter())]
    member = Membership(subject=user("u1"), scope=course_scope("c"), role="teacher")
    with pytest.raises(CallError) as caught:
        client.write([create(member)])
    assert caught.value.reason == "REFERENCE_NOT_FOUND"


def require_complete(store: Store, node: Node) -> None:
    """The removal comes to its end, in bounded revisions, and the replica holds what the database holds."""
    until(lambda: store.directory.removal_progress() is None, "the removal does not come to its end")
    with store.directory.dump() as dump:
        rows = expected(dumped(dump)) | tombstones(store)
    until(
        lambda: generation_of(node.replica) != 0 and set(rows_of(node.replica)) == rows,
        "the replica does not agree",
    )


def test_a_server_that_is_killed_while_it_removes_a_course(store_url: str, tmp_path: Path) -> None:
    draw = random.Random(12)
    node = Node("one", store_url, tmp_path)
    with running(node), closing(open_with(store_url)) as store, Client(node.address, timeout_s=30) as client:
        outcome = client.import_mutations(map(create, large_course()))
        assert outcome.failed == 0
        assert client.check("user:u0", "read", "notebook:in-s0")
        head = store.directory.head().revision
        client.write([Mutation(Operation.DELETE, CourseKey("c"))], reason="over")
        require_gone(client)
        for _ in range(KILLS):
            progress = store.directory.removal_progress()
            assert progress is not None
            until(lambda seen=progress: store.directory.removal_progress() != seen, "nobody continues")  # type: ignore[misc]  # bound now
            time.sleep(draw.uniform(0, 0.3))
            node.kill()
            node.start()
            require_gone(client)
        require_complete(store, node)
        log = changes_of(store, head, 1000)
        assert {change.reason for change in log} == {"over"}
        assert max(len(change.mutations) for change in log) <= BOUND + 1
        anew: list[Entity] = [
            Course(id="c", state=CourseState.ACTIVE),
            Session(id="s0", course_id="c"),
            notebook("in-s0", session_scope("s0")),
            Membership(subject=user("new"), scope=course_scope("c"), role="student"),
        ]
        token = client.write(map(create, anew))
        assert client.check("user:new", "read", "notebook:in-s0", at_least_as_fresh=token)
        for name in ("u0", "u1", "g0"):
            answer = client.check(f"user:{name}", "read", "notebook:in-s0")
            assert (answer.allowed, answer.reason) == (False, "NOT_A_MEMBER")
        assert [each.entity.subject for each in client.read(MembershipFilter())] == [user("new")]
