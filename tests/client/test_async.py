"""What only a client for asyncio has: many calls in flight, and calls that are given up."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from authz.client import AsyncClient, CallError
from authz.domain.entities import Course, CourseKey, Membership
from authz.domain.ids import course_scope, parse_subject
from authz.domain.mutations import Mutation, Operation
from tests.service import Service


async def test_calls_in_flight_together_are_each_answered(sqlite_service: Service) -> None:
    async with AsyncClient(sqlite_service.address) as client:
        await client.write([Mutation(Operation.CREATE, Course(id=f"c{number}")) for number in range(50)])
        answers = await asyncio.gather(
            *(client.check("user:maya", "read", f"course:c{number}") for number in range(60))
        )
    assert [answer.reason for answer in answers] == ["NOT_A_MEMBER"] * 50 + ["RESOURCE_UNKNOWN"] * 10


async def test_a_watch_that_is_cancelled_ends_and_takes_nothing_with_it(sqlite_service: Service) -> None:
    async with AsyncClient(sqlite_service.address) as client:
        started = asyncio.Event()

        async def follow() -> None:
            async with aclosing(client.watch(on_checkpoint=lambda _: started.set())) as changes:
                async for _ in changes:
                    pass

        task = asyncio.create_task(follow())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        token = await client.current_token()
        await client.write([Mutation(Operation.CREATE, Course(id="later"))])
        async with aclosing(client.watch(after=token)) as changes:
            change = await anext(changes)
        assert [mutation.key for mutation in change.mutations] == [CourseKey("later")]


async def test_calls_for_a_person_share_the_connection(sqlite_service: Service) -> None:
    async with AsyncClient(sqlite_service.address) as client:
        await client.write([Mutation(Operation.CREATE, Course(id="c"))])
        joining = Mutation(
            Operation.CREATE,
            Membership(subject=parse_subject("user:maya"), scope=course_scope("c"), role="student"),
        )
        with pytest.raises(CallError, match="user:nobody"):
            await client.with_options(acting_for="user:nobody").write([joining])
        await client.write([joining])


def test_outside_an_event_loop_it_says_where_to_make_it() -> None:
    with pytest.raises(RuntimeError, match="in a coroutine"):
        AsyncClient("127.0.0.1:1")


@pytest.mark.parametrize(
    "use",
    [
        lambda client: client.check("user:maya", "read", "course:c"),
        lambda client: client.write([Mutation(Operation.CREATE, Course(id="d"))]),
        lambda client: client.import_mutations([Mutation(Operation.CREATE, Course(id="d"))]),
        lambda client: anext(client.list_resources("user:maya", "read")),
        lambda client: anext(client.watch()),
    ],
)
async def test_in_another_event_loop_it_says_what_to_do(sqlite_service: Service, use: Any) -> None:
    async def elsewhere() -> None:
        await use(client)

    async with AsyncClient(sqlite_service.address) as client:
        with pytest.raises(RuntimeError, match="made in another event loop; make one in each"):
            await asyncio.to_thread(asyncio.run, elsewhere())
