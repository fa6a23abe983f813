"""A client whose clock is wrong gives no answer that is over by the clock of the server."""

from __future__ import annotations

import asyncio
import time

from authz.client import Client, DecisionCache
from authz.domain.entities import Course, CourseState, Membership
from authz.domain.ids import course_scope, parse_subject
from authz.domain.instants import US_PER_S
from authz.domain.mutations import Mutation, Operation
from tests.service import Service, in_process, serve
from tests.waiting import until

YEAR_US = 365 * 86_400 * US_PER_S
QUESTION = ("user:maya", "read", "course:algebra")


@in_process
async def test_a_cached_answer_is_over_when_the_clock_of_the_server_says_so(sqlite_url: str) -> None:
    def use(service: Service) -> None:
        cache = DecisionCache()
        member = Membership(
            subject=parse_subject("user:maya"),
            scope=course_scope("algebra"),
            role="student",
            ends_at=service.now + 60 * US_PER_S,
        )
        with Client(service.address, cache=cache) as client:
            client.write([Mutation(Operation.CREATE, Course(id="algebra", state=CourseState.ACTIVE))])
            client.write([Mutation(Operation.CREATE, member)])
            until(lambda: client.check(*QUESTION) and cache.asking() is not None)
            given = client.check(*QUESTION)
            assert given and client.check(*QUESTION) is given  # from the cache
            service.now += 120 * US_PER_S
            until(lambda: not client.check(*QUESTION))

    async with serve(sqlite_url, now=time.time_ns() // 1000 + YEAR_US) as service:
        await asyncio.to_thread(use, service)
