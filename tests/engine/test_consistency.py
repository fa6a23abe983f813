"""Tokens: a caller sees its own write, waits for one that is coming, and never a mixture of two states."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from authz.domain.entities import Course
from authz.domain.tokens import ConsistencyToken
from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import policy_pb2 as ppb
from authz.v1 import watch_pb2 as wpb
from tests.api.test_api import ALGEBRA, COURSE, MATERIAL, STUDENT, question, touch, written
from tests.service import Service, info_of, reason_of, serve
from tests.store.directory import create, open_with, write
from tests.tokens import keys_in, made_up


def ahead_of(service: Service, token: pb.ConsistencyToken, by: int = 1) -> pb.Consistency:
    return pb.Consistency(at_least_as_fresh=service.moved(token, by))


async def test_each_requirement_sees_the_last_write(service: Service) -> None:
    token = await written(service, STUDENT, MATERIAL, COURSE)
    for consistency in (
        pb.Consistency(),
        pb.Consistency(minimize_latency=True),
        pb.Consistency(fully_consistent=True),
        pb.Consistency(at_least_as_fresh=token),
    ):
        answer = await service.authorization.Check(question(consistency=consistency))
        assert answer.allowed
        assert answer.checked_at == token


async def test_a_call_waits_for_the_write_that_its_token_names(service: Service) -> None:
    token = await written(service, STUDENT, COURSE)
    waiting = asyncio.ensure_future(
        service.authorization.Check(question(consistency=ahead_of(service, token)), timeout=30)
    )
    later = await written(service, MATERIAL)
    answer = await waiting
    assert answer.allowed
    assert answer.checked_at == later


async def test_a_token_of_the_future_is_not_fresh_enough_within_the_deadline(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.engine.consistency._ANSWER_MARGIN_S", 60)  # at most half of the time is kept
    consistency = ahead_of(service, await written(service, COURSE), by=1000)
    batch = apb.BatchCheckRequest(items=[question()], consistency=consistency)
    actions = apb.ListActionsRequest(
        subject=question().subject, resource=question().resource, consistency=consistency
    )
    calls = [
        service.authorization.Check(question(consistency=consistency), timeout=4),
        service.authorization.BatchCheck(batch, timeout=4),
        service.authorization.ListActions(actions, timeout=4),
        service.directory.ReadCourses(dpb.ReadCoursesRequest(consistency=consistency), timeout=4),
        service.directory.ReadShares(dpb.ReadSharesRequest(consistency=consistency), timeout=4),
    ]
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(outcome, grpc.aio.AioRpcError)
        assert outcome.code() is grpc.StatusCode.UNAVAILABLE
        assert reason_of(outcome) == "NOT_FRESH_ENOUGH"


async def test_the_server_bounds_the_wait_of_a_call_that_states_a_late_deadline(sqlite_url: str) -> None:
    async with serve(sqlite_url, freshness_timeout_s="0.2") as service:
        consistency = ahead_of(service, await written(service, COURSE), by=1000)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.authorization.Check(question(consistency=consistency), timeout=3600)
        assert reason_of(caught.value) == "NOT_FRESH_ENOUGH"


async def test_a_token_of_another_database_is_refused_by_every_read(sqlite_service: Service) -> None:
    other = made_up(ConsistencyToken("0" * 32, 1))
    consistency = pb.Consistency(at_least_as_fresh=pb.ConsistencyToken(token=other))
    for call in (
        sqlite_service.authorization.Check(question(consistency=consistency)),
        sqlite_service.directory.ReadMemberships(dpb.ReadMembershipsRequest(consistency=consistency)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert reason_of(caught.value) == "MALFORMED_TOKEN"
        assert "of another database" in str(caught.value.details())
        assert info_of(caught.value).metadata["field"] == "consistency.at_least_as_fresh"


async def test_reads_of_the_database_do_not_wait_for_the_replica(store_url: str) -> None:
    store = open_with(store_url)
    write(store, create(Course(id="algebra-1")))
    token = pb.ConsistencyToken(token=keys_in(store).sign(store.directory.head()))
    store.close()
    newest = pb.Consistency(at_least_as_fresh=token)
    async with serve(store_url, follow="false") as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.authorization.Check(question(consistency=newest))
        assert reason_of(caught.value) == "REPLICA_NOT_READY"
        read = await service.directory.ReadCourses(dpb.ReadCoursesRequest(consistency=newest))
        assert [each.id for each in read.courses] == ["algebra-1"]
        assert read.read_at == token
        policies = ppb.ReadPolicyVersionsRequest(consistency=newest)
        assert (await service.policy.ReadPolicyVersions(policies)).read_at == token
        watching = service.watch.Watch(wpb.WatchRequest(after=token))
        assert (await watching.read()).checkpoint.read_up_to == token
        watching.cancel()


async def test_a_read_of_the_database_waits_for_a_write_that_its_token_names(service: Service) -> None:
    token = await written(service, COURSE)
    later = ahead_of(service, token)
    reading = asyncio.ensure_future(
        service.directory.ReadMemberships(dpb.ReadMembershipsRequest(consistency=later), timeout=30)
    )
    await asyncio.wait({reading}, timeout=0.2)
    assert not reading.done()
    await written(service, STUDENT)
    assert len((await reading).memberships) == 1


async def test_a_batch_never_sees_half_of_a_write(service: Service) -> None:
    await written(service, STUDENT, MATERIAL, COURSE)
    names = [f"n-{number}" for number in range(10)]

    async def flip() -> None:
        for turn in range(30):
            await written(
                service,
                *(
                    touch(
                        resource=pb.Resource(type="material", id=name, scope=ALGEBRA, published=turn % 2 == 0)
                    )
                    for name in names
                ),
            )

    writing = asyncio.ensure_future(flip())
    request = apb.BatchCheckRequest(items=[question(resource_id=name) for name in names])
    states = set()
    while not writing.done():
        response = await service.authorization.BatchCheck(request)
        answers = {result.response.reason for result in response.results}
        assert len(answers) == 1
        assert {result.response.checked_at.token for result in response.results} == {
            response.checked_at.token
        }
        states.add(response.checked_at.token)
    await writing
    assert len(states) > 1
