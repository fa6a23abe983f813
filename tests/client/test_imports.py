"""An import keeps the memberships of one person that follow each other in one message."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from authz.client import AsyncClient, Client
from authz.client.imports import import_messages
from authz.domain.entities import Course, Membership, Resource, Share, ShareFilter, ShareLevel
from authz.domain.ids import course_scope, parse_subject
from authz.domain.mutations import Mutation, Operation
from tests.serving import served

ANNA, SCOPE = parse_subject("user:anna"), course_scope("imported")
NOTES = Resource("notebook", "imported", scope=SCOPE)
STUDENT, TEACHER = (Membership(ANNA, SCOPE, role) for role in ("student", "teacher"))
SHARE = Share(NOTES.key, ANNA, ShareLevel.VIEWER)


def touches(count: int) -> list[Mutation]:
    return [Mutation(Operation.TOUCH, Course(f"imported-{number}")) for number in range(count)]


def test_a_role_that_changes_at_the_end_of_a_message_keeps_the_shares(empty_sqlite_url: str) -> None:
    with served(empty_sqlite_url) as address, Client(address) as client:
        client.write(
            [Mutation(Operation.TOUCH, each) for each in (Course("imported"), NOTES, STUDENT, SHARE)]
        )
        change = [Mutation(Operation.DELETE, STUDENT.key), Mutation(Operation.TOUCH, TEACHER)]
        assert client.import_mutations([*touches(999), *change]).failed == 0
        assert [each.entity for each in client.read(ShareFilter(subject=ANNA))] == [SHARE]


@pytest.mark.parametrize(
    ("mutations", "sizes"),
    [
        ([], []),
        (touches(2001), [1000, 1000, 1]),
        ([*touches(998), *[Mutation(Operation.TOUCH, STUDENT)] * 3, *touches(1)], [998, 4]),
        ([Mutation(Operation.TOUCH, STUDENT)] * 1001, [1000, 1]),
    ],
)
def test_every_other_message_is_full(mutations: list[Mutation], sizes: list[int]) -> None:
    sent: list[int] = []
    messages = [*import_messages(mutations, "", sent.append)]
    assert [len(message.mutations) for message in messages] == sizes
    assert sent == [sum(sizes[: place + 1]) for place in range(len(sizes))]


@pytest.mark.parametrize("error", [ValueError("row 2 is broken"), KeyError("course_id")], ids=repr)
async def test_what_the_mutations_raise_is_raised_and_is_not_logged(
    empty_sqlite_url: str, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def mutations() -> Iterator[Mutation]:
        yield from touches(1000)
        raise error

    with served(empty_sqlite_url) as address:
        async with AsyncClient(address) as client:
            with pytest.raises(type(error)) as raised:
                await client.import_mutations(mutations())
        assert raised.value is error
        with Client(address) as blocking, pytest.raises(type(error)) as raised:
            blocking.import_mutations(mutations())
        assert raised.value is error
    assert [each for each in caplog.records if each.name.startswith("grpc")] == []
