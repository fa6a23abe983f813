"""What breaks below the service: it denies by an error that hides its cause, and health says so."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import msgspec
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from authz.domain.errors import ConflictError, ErrorReason, UnavailableError
from authz.domain.tokens import TokenKeys
from authz.runtime import health as health_of_service
from authz.runtime import server
from authz.runtime.compose import open_view
from authz.runtime.settings import Settings
from authz.store import Store, open_store
from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from tests import forkserver
from tests.api.test_api import COURSE, MATERIAL, STUDENT, question, written
from tests.service import Service, in_process, info_of, reason_of, retry_of, serve

SECRET = "password of the database"
FAULTS: list[Exception] = [RuntimeError(SECRET), KeyError(SECRET), AssertionError(SECRET)]
AWAY = UnavailableError(ErrorReason.STORE_UNAVAILABLE, "the database does not answer; try again later")


class Breakable:
    """The real directory or view, until `fault` is set: then every use of it raises that."""

    def __init__(self, real: Any) -> None:
        self.fault: Exception | None = None
        self._real = real

    def __getattr__(self, name: str) -> Any:
        if self.fault is not None and name not in ("close", "abort_connections"):
            raise self.fault
        return getattr(self._real, name)


class BreakableSnapshot:
    """A view whose snapshot opens, and then fails at the `after`-th thing that is asked of it."""

    def __init__(self, real: Any, fault: Exception, after: int) -> None:
        self._real, self._fault, self._left = real, fault, after

    def __getattr__(self, name: str) -> Any:
        self._left -= 1
        if self._left < 0:
            raise self._fault
        return getattr(self._real, name)


class Breaking:
    """What the server under test opened, to be broken while it serves."""

    def __init__(self) -> None:
        self.directory = Breakable(None)
        self.view = Breakable(None)

    def open(self, *given: Any, **settings: Any) -> Store:
        """Stands in for `open_store`."""
        store = open_store(*given, **settings)
        self.directory = Breakable(store.directory)
        return msgspec.structs.replace(store, directory=self.directory)

    def open_view(self, settings: Settings, keys: TokenKeys) -> Any:
        """Stands in for `open_view`."""
        self.view = Breakable(open_view(settings, keys))
        return self.view


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Breaking:
    """Puts a breakable store into the next server, which must be in this process."""
    if forkserver.TRANSPORT == "envoy":
        pytest.skip("reaches into the process of the server")
    breaking = Breaking()
    monkeypatch.setattr(server, "open_store", breaking.open)
    monkeypatch.setattr(server, "open_view", breaking.open_view)
    monkeypatch.setattr(health_of_service, "_STORE_INTERVAL_S", 0.01)
    return breaking


def everything_that_decides(service: Service) -> list[Any]:
    actions = apb.ListActionsRequest(subject=question().subject, resource=question().resource)
    return [
        service.authorization.Check(question()),
        service.authorization.BatchCheck(apb.BatchCheckRequest(items=[question("raed"), question()])),
        service.authorization.ListActions(actions),
    ]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_a_broken_view_is_an_internal_error_without_its_cause(
    breaking: Breaking, sqlite_url: str, fault: Exception
) -> None:
    async with serve(sqlite_url) as service:
        await written(service, COURSE, STUDENT, MATERIAL)
        assert (await service.authorization.Check(question())).allowed
        breaking.view.fault = fault
        for call in everything_that_decides(service):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.INTERNAL
            assert reason_of(caught.value) == "INTERNAL"
            assert SECRET not in str(caught.value)
            request_id = info_of(caught.value).metadata["request_id"]
            assert request_id
            assert request_id in str(caught.value.details())
        breaking.view.fault = None
        assert (await service.authorization.Check(question())).allowed


@in_process
async def test_a_fault_in_the_middle_of_deciding_never_allows(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = 0

    class View:
        def __init__(self, real: Any) -> None:
            self._real = real

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def snapshot(self) -> Any:
            return BreakableSnapshot(self._real.snapshot(), RuntimeError(SECRET), after)

    monkeypatch.setattr(server, "open_view", lambda settings, keys: View(open_view(settings, keys)))
    async with serve(sqlite_url) as service:
        await written(service, COURSE, STUDENT, MATERIAL)
        while True:
            try:
                assert (await service.authorization.Check(question())).allowed
                break
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.INTERNAL
                assert SECRET not in str(error)
            after += 1
        assert after > 2


async def test_a_database_that_is_away_is_unavailable_to_every_call_that_needs_it(
    breaking: Breaking, sqlite_url: str
) -> None:
    async with serve(sqlite_url) as service:
        await written(service, COURSE, STUDENT, MATERIAL)
        breaking.directory.fault = AWAY
        calls = [
            service.authorization.Check(question(consistency=pb.Consistency(fully_consistent=True))),
            service.directory.Write(dpb.WriteRequest(mutations=[COURSE])),
            service.directory.Import(iter([dpb.ImportRequest(mutations=[COURSE])])),
            service.directory.ReadCourses(dpb.ReadCoursesRequest()),
        ]
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert reason_of(caught.value) == "STORE_UNAVAILABLE"
        for call in everything_that_decides(service):
            await call
        assert (await service.authorization.Check(question())).allowed
        breaking.directory.fault = None


async def test_past_the_bound_of_staleness_nothing_is_answered_and_health_says_so(
    breaking: Breaking, sqlite_url: str
) -> None:
    async with serve(sqlite_url, max_staleness_s="3") as service:
        token = await written(service, COURSE, STUDENT, MATERIAL)
        await until(service, health_pb2.HealthCheckResponse.SERVING)
        breaking.directory.fault = AWAY
        await until(service, health_pb2.HealthCheckResponse.NOT_SERVING)
        seen = pb.Consistency(at_least_as_fresh=token)
        for call in [
            *everything_that_decides(service),
            service.authorization.Check(question(consistency=seen)),
        ]:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert reason_of(caught.value) == "TOO_STALE"
        breaking.directory.fault = None
        await until(service, health_pb2.HealthCheckResponse.SERVING)
        assert (await service.authorization.Check(question())).allowed


async def until(service: Service, status: int, of: str = "authz.v1.AuthorizationService") -> None:
    health = health_pb2_grpc.HealthStub(service.channel)
    watched = health.Watch(health_pb2.HealthCheckRequest(service=of))
    async with asyncio.timeout(30):
        async for answer in watched:
            if answer.status == status:
                watched.cancel()
                return


@in_process
@pytest.mark.parametrize(
    "fault",
    [AWAY, ConflictError("busy"), RuntimeError(SECRET)],
    ids=["away", "busy", "broken"],
)
async def test_health_of_the_directory_follows_the_database_down_and_up_again(
    breaking: Breaking, sqlite_url: str, fault: Exception
) -> None:
    name = "authz.v1.DirectoryService"
    async with serve(sqlite_url) as service:
        await until(service, health_pb2.HealthCheckResponse.SERVING, name)
        breaking.directory.fault = fault
        await until(service, health_pb2.HealthCheckResponse.NOT_SERVING, name)
        await until(service, health_pb2.HealthCheckResponse.SERVING)
        breaking.directory.fault = None
        await until(service, health_pb2.HealthCheckResponse.SERVING, name)


@in_process
async def test_calls_beyond_the_limit_are_shed_while_one_is_held(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, entered = threading.Event(), threading.Event()

    def open_held(*given: Any, **settings: Any) -> Store:
        real = open_store(*given, **settings)

        class Directory:
            def __getattr__(self, name: str) -> Any:
                return getattr(real.directory, name)

            def read(self, *wanted: Any) -> Any:
                entered.set()
                assert held.wait(30)
                return real.directory.read(*wanted)

        return msgspec.structs.replace(real, directory=Directory())

    monkeypatch.setattr(server, "open_store", open_held)
    async with serve(sqlite_url, max_reads="1") as service:
        await written(service, COURSE, STUDENT, MATERIAL)
        first = asyncio.ensure_future(service.directory.ReadCourses(dpb.ReadCoursesRequest()))
        await asyncio.to_thread(entered.wait, 30)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.directory.ReadSessions(dpb.ReadSessionsRequest())
        # Neither checks nor writes are shed with the reads.
        assert (await service.authorization.Check(question())).allowed
        await written(service, COURSE)
        health = health_pb2_grpc.HealthStub(service.channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
        held.set()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason_of(caught.value) == "OVERLOADED"
        assert info_of(caught.value).metadata["limit"] == "1"
        assert retry_of(caught.value).retry_delay.ToMilliseconds() > 0
        assert (await first).courses
        assert (await service.directory.ReadCourses(dpb.ReadCoursesRequest())).courses
