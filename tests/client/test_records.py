"""Records and mutations that a client is given: text and datetimes alike, and a fault names its field."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest

from authz.client import AsyncClient, CallError, Client, InvalidArgumentError
from authz.domain.entities import (
    Course,
    CourseKey,
    CourseState,
    Membership,
    MembershipKey,
    MembershipStatus,
    Resource,
)
from authz.domain.ids import course_scope
from authz.domain.mutations import Expectation, Mutation, Operation, Precondition
from tests.client.test_arguments import NOBODY, TERM_ENDS
from tests.serving import served
from tests.store.directory import user


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("given")
    with served(f"sqlite:///{folder / 'authz.db'}", inline_types="message") as found:
        yield found


def test_a_record_may_have_text_and_datetimes(address: str) -> None:
    with Client(address) as client:
        client.write([Mutation(Operation.TOUCH, Course(id="algebra", state="ACTIVE"))])  # type: ignore[arg-type]  # as a caller without types gives it
        maya = Membership(
            subject="user:maya",  # type: ignore[arg-type]
            scope="course:algebra",  # type: ignore[arg-type]
            role="student",
            ends_at=TERM_ENDS,  # type: ignore[arg-type]
        )
        client.write([Mutation(Operation.TOUCH, maya)])
        (found,) = client.read_memberships(subject="user:maya", scope="course:algebra")
        assert found.entity == Membership(
            subject=user("maya"), scope=course_scope("algebra"), role="student", ends_at=4_118_083_200_000_000
        )
        key = MembershipKey("user:maya", "course:algebra", "student")  # type: ignore[arg-type]
        there = Precondition(key, Expectation.EXISTS)
        client.write([Mutation(Operation.DELETE, key)], preconditions=[there])
        client.update(CourseKey("algebra"), state="CONCLUDED", edit_window_us=dt.timedelta(minutes=1))
        (course,) = client.read_courses(ids=["algebra"])
        assert (course.entity.state, course.entity.edit_window_us) == (CourseState.CONCLUDED, 60_000_000)
        changes = client.audit.changes(
            kinds=["membership"], subject="user:maya", since=dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
        )
        assert len([*changes]) == 2


def test_a_resource_that_is_not_registered_may_be_described(address: str) -> None:
    with Client(address) as client:
        client.write(
            [
                Mutation(Operation.TOUCH, Course(id="biology", state=CourseState.ACTIVE)),
                Mutation(
                    Operation.TOUCH,
                    Membership(subject=user("omar"), scope=course_scope("biology"), role="student"),
                ),
            ]
        )
        message = Resource(
            type="message",
            id="never-registered",
            scope=course_scope("biology"),
            owner=user("omar"),
            created_at=dt.datetime.now(dt.UTC),  # type: ignore[arg-type]  # as a caller without types gives it
        )
        assert client.check("user:omar", "update", message)
        assert client.check("user:nadia", "read", message).reason == "NOT_A_MEMBER"
        assert client.check("user:omar", "update", message.key).reason == "RESOURCE_UNKNOWN"
        assert client.explain("user:omar", "update", message).answer
        actions = client.list_actions("user:omar", message)
        assert actions["update"]
        assert client.batch_list_actions("user:omar", [message]) == [actions]
        assert [each.subject for each in client.list_subjects("update", message)] == ["user:omar"]
        assert client.authorize_sources("user:omar", [message])[0].resource == "message:never-registered"


def test_a_call_has_the_id_that_the_caller_gives_it_in_logs(address: str) -> None:
    with Client(address) as client:
        logged = client.with_options(request_id="trace-42")
        logged.write([Mutation(Operation.TOUCH, Course(id="chemistry", state=CourseState.ACTIVE))])
        change = next(client.audit.changes(scope="course:chemistry"))
        assert change.request_id == "trace-42"
        with pytest.raises(CallError, match="request_id"):
            client.with_options(request_id="not an id").check("user:maya", "read", "course:algebra")


@pytest.mark.parametrize(
    ("record", "named"),
    [
        (Course(id=7), "course.id is `7`"),  # type: ignore[arg-type]
        (Course(id="a", state="OPEN"), "course.state is `'OPEN'`; give one of DRAFT, ACTIVE"),  # type: ignore[arg-type]
        (Course(id="a", ai_enabled="yes"), "course.ai_enabled is `'yes'`; give true or false"),  # type: ignore[arg-type]
        (
            Membership(subject=user("maya"), scope="algebra", role="student"),  # type: ignore[arg-type]
            "membership.scope `algebra` has no type",
        ),
        (
            Membership(
                subject=user("maya"),
                scope=course_scope("a"),
                role="student",
                status=MembershipStatus.ACTIVE,
                ends_at=dt.datetime(2100, 7, 1),  # type: ignore[arg-type]
            ),
            "membership.ends_at is",
        ),
        ("course:a", "record is `'course:a'`; give an entity or a key"),
    ],
)
def test_a_field_of_another_type_is_named(record: Any, named: str) -> None:
    with Client(NOBODY) as client, pytest.raises(InvalidArgumentError, match=named):
        client.write([Mutation(Operation.CREATE, record)])


COURSE = Course(id="a", state=CourseState.ACTIVE)


@pytest.mark.parametrize(
    ("mutation", "precondition", "told"),
    [
        (Mutation("TUCH", COURSE), None, "operation is `'TUCH'`; give one of CREATE, TOUCH"),  # type: ignore[arg-type]
        (Mutation(Operation.CREATE, COURSE.key), None, "create of course:a carries a key; send the whole"),
        (Mutation(Operation.TOUCH, COURSE.key), None, "touch of course:a carries a key; send the whole"),
        (
            Mutation(Operation.TOUCH, COURSE),
            Precondition(COURSE.key, "EXIST"),  # type: ignore[arg-type]
            "expectation is `'EXIST'`; give one of EXISTS",
        ),
    ],
)
def test_a_write_that_says_less_than_it_must_is_named(
    mutation: Mutation, precondition: Precondition | None, told: str
) -> None:
    preconditions = [] if precondition is None else [precondition]
    with Client(NOBODY) as client, pytest.raises(InvalidArgumentError, match=told):
        client.write([mutation], preconditions=preconditions)


def test_a_write_may_name_its_operation_and_its_expectation_by_text(address: str) -> None:
    expected: Any = Precondition(CourseKey("named"), "NOT_EXISTS")  # type: ignore[arg-type]
    named: Any = Mutation("CREATE", Course(id="named"))  # type: ignore[arg-type]
    with Client(address) as client:
        assert client.write([named], preconditions=[expected])


async def test_an_import_that_reaches_no_server_fails_like_any_call() -> None:
    mutations = [Mutation(Operation.TOUCH, Course(id="algebra", state=CourseState.ACTIVE))]
    for given in ([], mutations):
        async with AsyncClient(NOBODY) as client:
            with pytest.raises(CallError, match="all backends failing"):
                await client.import_mutations(given)
        with (
            Client(NOBODY) as blocking,
            pytest.raises(CallError, match="all backends failing"),
        ):
            blocking.import_mutations(given)


async def test_an_import_raises_what_its_mutations_raise(address: str) -> None:
    def broken() -> Iterator[Mutation]:
        yield Mutation(Operation.TOUCH, Course(id="poetry", state=CourseState.ACTIVE))
        raise FileNotFoundError("roster.csv")

    with Client(address) as blocking, pytest.raises(FileNotFoundError, match="roster"):
        blocking.import_mutations(broken())
    async with AsyncClient(address) as client:
        with pytest.raises(FileNotFoundError, match="roster"):
            await client.import_mutations(broken())
