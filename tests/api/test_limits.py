"""How much each caller may call: what is beyond it is shed, and nobody else's calls are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from authz.access.principal import Principal
from authz.access.watched_file import WatchedFile
from authz.api.call import Call, CallKind, Method
from authz.api.limits import Limiter, parse_limits
from authz.domain.errors import ErrorReason, InvalidArgumentError, OverloadedError
from authz.domain.ids import parse_subject
from authz.telemetry.metrics import REGISTRY
from authz.v1 import directory_pb2 as dpb
from authz.v1 import policy_pb2 as ppb
from authz.v1 import watch_pb2 as wpb
from tests.api.in_process import Request
from tests.api.test_api import COURSE, STUDENT, delete, question
from tests.callers import grant
from tests.databases import create_sqlite
from tests.issuer import Issuer, bearer
from tests.service import START, Service, in_process, info_of, retry_of, serve

ISSUER = Issuer()
MODULE = pytest.mark.asyncio(loop_scope="module")
SLOW = "per_second = 0.01\nburst = 2\n"
"""No test waits a hundred seconds for the next call."""
FILE = f"""
[each.checks]
{SLOW}
[each.reads]
{SLOW}
[each.policy_calls]
{SLOW}
[each.watches]
in_flight = 1
[callers."service:trusted".checks]
[callers."service:polite".reads]
per_second = 5
burst = 1
"""
GONE = delete(membership=STUDENT.membership)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Service, Path]]:
    folder = tmp_path_factory.mktemp("limits")
    file = folder / "limits.toml"
    file.write_text(FILE)
    url = create_sqlite(folder / "authz.db")
    grant(
        url,
        {f"service:{name}": "platform_admin" for name in (*"abcdefg", "polite", "trusted")},
    )
    settings = {"limits_file": str(file), **ISSUER.settings(folder)}
    async with serve(url, now=START, **settings) as service:
        await service.directory.Write(dpb.WriteRequest(mutations=[COURSE, STUDENT]), metadata=by("trusted"))
        yield service, file


def by(caller: str) -> tuple[tuple[str, str], ...]:
    """The credential of a caller."""
    return bearer(ISSUER.jwt(caller))


async def ask(service: Service, caller: str, times: int = 1) -> None:
    for _ in range(times):
        await service.authorization.Check(question(), metadata=by(caller))


def shed(kind: str, reason: str) -> float:
    return REGISTRY.get_sample_value("authz_shed_calls_total", {"kind": kind, "reason": reason}) or 0


@MODULE
async def test_a_caller_beyond_its_rate_is_told_the_limit_and_when_to_try_again(
    secured: tuple[Service, Path],
) -> None:
    service, _ = secured
    await ask(service, "a", 2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(service, "a")
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (info_of(caught.value).reason, dict(info_of(caught.value).metadata)) == (
        "LIMIT_EXCEEDED",
        {"limit": "each.checks.per_second"},
    )
    assert 0 < retry_of(caught.value).retry_delay.ToMilliseconds() <= 100_000
    told = caught.value.details() or ""
    assert "more than 0.01 checks a second of `service:a`" in told
    assert "`each.checks.per_second` in AUTHZ_LIMITS_FILE" in told


@MODULE
async def test_calls_that_are_refused_count_against_the_limits_of_their_caller(
    secured: tuple[Service, Path],
) -> None:
    service, _ = secured
    codes = []
    for _ in range(3):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.directory.ReadCourses(dpb.ReadCoursesRequest(), metadata=by("stranger"))
        codes.append(caught.value.code())
    denied, shed = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED
    assert codes == [denied, denied, shed]


@MODULE
async def test_another_connection_of_the_same_caller_gets_no_more(secured: tuple[Service, Path]) -> None:
    service, _ = secured
    await ask(service, "b", 2)
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(service.address, own) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="service:b"):
            await ask(Service(channel, service.address), "b")


@MODULE
async def test_a_caller_beyond_its_checks_still_revokes_and_others_still_check(
    secured: tuple[Service, Path],
) -> None:
    service, _ = secured
    await ask(service, "c", 2)
    with pytest.raises(grpc.aio.AioRpcError, match="LIMITS_FILE"):
        await ask(service, "c")
    written = await service.directory.Write(dpb.WriteRequest(mutations=[GONE]), metadata=by("c"))
    assert written.replicated
    await ask(service, "trusted", 20)  # an empty table lifts what is said of each


@MODULE
async def test_each_kind_of_call_is_counted_by_itself(secured: tuple[Service, Path]) -> None:
    service, _ = secured
    read, edit = dpb.ReadCoursesRequest(), ppb.DeletePolicyDraftRequest(id="none", etag="e")
    for _ in range(2):
        await service.directory.ReadCourses(read, metadata=by("d"))
    with pytest.raises(grpc.aio.AioRpcError, match=r"each\.reads\.per_second"):
        await service.directory.ReadCourses(read, metadata=by("d"))
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError, match="none"):
            await service.policy.DeletePolicyDraft(edit, metadata=by("d"))
    with pytest.raises(grpc.aio.AioRpcError, match=r"each\.policy_calls\.per_second"):
        await service.policy.DeletePolicyDraft(edit, metadata=by("d"))


@MODULE
async def test_a_caller_has_as_many_watches_as_it_may_have_at_once(secured: tuple[Service, Path]) -> None:
    service, _ = secured
    first = service.watch.Watch(wpb.WatchRequest(), metadata=by("e"))
    await first.read()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.watch.Watch(wpb.WatchRequest(), metadata=by("e")).read()
    assert info_of(caught.value).metadata["limit"] == "each.watches.in_flight"
    other = service.watch.Watch(wpb.WatchRequest(), metadata=by("trusted"))
    await other.read()
    first.cancel()
    while True:
        try:
            await service.watch.Watch(wpb.WatchRequest(), metadata=by("e")).read()
        except grpc.aio.AioRpcError as error:
            assert info_of(error).reason == "LIMIT_EXCEEDED"  # the server has not noticed yet
            await asyncio.sleep(0.01)
        else:
            break
    other.cancel()


@MODULE
async def test_a_client_of_grpc_that_retries_by_itself_does_so_when_the_server_says(
    secured: tuple[Service, Path],
) -> None:
    service, _ = secured
    retries = {
        "maxAttempts": 3,
        "initialBackoff": "0.001s",
        "maxBackoff": "0.001s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
    }
    policy = {"methodConfig": [{"name": [{"service": "authz.v1.DirectoryService"}], "retryPolicy": retries}]}
    options = [("grpc.service_config", json.dumps(policy)), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(service.address, options) as channel:
        directory = Service(channel, service.address).directory
        read = dpb.ReadSessionsRequest()
        for _ in range(3):
            assert not (await directory.ReadSessions(read, metadata=by("polite"), timeout=60)).sessions
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            for _ in range(3):
                await directory.ReadSessions(read, metadata=by("g"), timeout=30)
        assert info_of(caught.value).reason == "LIMIT_EXCEEDED"  # not that its time is up


@in_process
@MODULE
async def test_the_file_is_read_again_and_a_bad_one_leaves_the_limits_as_they_were(
    secured: tuple[Service, Path],
) -> None:
    service, file = secured
    with capture_logs() as lines:
        file.write_text("[each.chekcs]\nper_second = 1\n")
        while not any(line["event"].startswith("file not read again") for line in lines):
            await ask(service, "trusted")
            await asyncio.sleep(0.01)
    assert "each.chekcs is no kind of call; write one of checks, " in str(lines)
    before = shed("reads", "rate")
    for _ in range(2):
        await service.directory.ReadCourses(dpb.ReadCoursesRequest(), metadata=by("f"))
    with pytest.raises(grpc.aio.AioRpcError, match=r"each\.reads"):
        await service.directory.ReadCourses(dpb.ReadCoursesRequest(), metadata=by("f"))
    assert shed("reads", "rate") == before + 1
    file.write_text("[each.reads]\nper_second = 1000\n")
    while True:
        try:
            await service.directory.ReadCourses(dpb.ReadCoursesRequest(), metadata=by("f"))
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.01)
        else:
            break


CHECK = Method("/authz.v1.AuthorizationService/Check", CallKind.DECISION)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def limiter_of(text: str, folder: Path, clock: Clock) -> Limiter:
    file = folder / "limits.toml"
    file.write_text(text)
    return Limiter(WatchedFile(str(file), parse_limits, setting="AUTHZ_LIMITS_FILE", holds="limits"), clock)


def call_of(caller: str = "", connection: str = "") -> Call:
    principal = Principal(parse_subject(caller) if caller else None)
    return Call(method=CHECK, transport=Request({}, connection=connection), principal=principal)


def admitted(limiter: Limiter, call: Call, times: int) -> int:
    count = 0
    for _ in range(times):
        try:
            limiter.admit(call)
        except OverloadedError as error:
            assert error.reason is ErrorReason.LIMIT_EXCEEDED
        else:
            count += 1
    return count


@pytest.mark.parametrize(
    ("limit", "at_once", "in_ten_seconds"),
    [
        ("per_second = 5", 5, 50),
        ("per_second = 5\nburst = 1", 1, 50),
        ("per_second = 0.5\nburst = 20", 20, 5),
        ("per_second = 0.5", 1, 5),
        ("per_second = 0.3", 1, 2),  # the fourth is due after ten seconds; one was made before
        ("per_second = 100\nburst = 500", 500, 1000),
    ],
)
def test_a_rate_holds_over_time_whatever_is_tried_meanwhile(
    tmp_path: Path, limit: str, at_once: int, in_ten_seconds: int
) -> None:
    clock = Clock()
    limiter = limiter_of(f"[each.checks]\n{limit}", tmp_path, clock)
    assert admitted(limiter, call_of("service:a"), 2 * at_once) == at_once
    assert admitted(limiter, call_of("service:b"), 2 * at_once) == at_once
    total = 0
    for _ in range(200):
        clock.now += 0.05
        total += admitted(limiter, call_of("service:a"), 8)
    assert total == in_ten_seconds
    clock.now += 3600
    assert admitted(limiter, call_of("service:a"), 2 * at_once) == at_once


@pytest.mark.parametrize(
    ("per_second", "told"),
    [
        ("0.0005", "more than 0.0005 checks a second of `service:a`"),
        ("0.00001", "more than 0.00001 checks a second of `service:a`"),
        ("1234567.5\nburst = 1", "more than 1234567.5 checks a second of `service:a`"),
        ("0.0005", "; try again in 1998 s, or"),
        ("0.00001", "; try again in 99900 s, or"),
        ("4\nburst = 1", "; try again in 0.25 s, or"),
        ("1234567.5\nburst = 1", "; try again in 0.001 s, or"),
    ],
)
def test_a_rate_and_the_time_to_wait_are_told_in_digits(tmp_path: Path, per_second: str, told: str) -> None:
    clock = Clock()
    limiter = limiter_of(f"[each.checks]\nper_second = {per_second}", tmp_path, clock)
    limiter.admit(call_of("service:a"))
    with pytest.raises(OverloadedError) as caught:
        limiter.admit(call_of("service:a"))
    assert told in caught.value.message
    clock.now += caught.value.retry_after_s
    limiter.admit(call_of("service:a"))


def test_a_client_without_identity_counts_by_its_address_and_not_by_its_port(tmp_path: Path) -> None:
    limiter = limiter_of("[each.checks]\nper_second = 1", tmp_path, Clock())
    connections = ("ipv4:10.0.0.1:1111", "ipv4:10.0.0.1:2222", "ipv4:10.0.0.2:1111", "", "")
    calls = [call_of(connection=connection) for connection in connections]
    assert [admitted(limiter, call, 1) for call in calls] == [1, 0, 1, 1, 0]
    with pytest.raises(OverloadedError, match="of the clients at the Unix socket"):
        limiter.admit(calls[-1])


def test_as_many_calls_are_in_flight_as_may_be_when_some_of_them_end(tmp_path: Path) -> None:
    limiter = limiter_of("[each.checks]\nin_flight = 3", tmp_path, Clock())
    calls = [call_of("service:a") for _ in range(3)]
    assert [admitted(limiter, call, 1) for call in calls] == [1, 1, 1]
    for ended in (1, 2):
        for call in calls[:ended]:
            call.transport.send()  # type: ignore[attr-defined]  # of the face of these tests
        calls = calls[ended:] + [call_of("service:a") for _ in range(ended)]
        assert [admitted(limiter, call, 1) for call in calls[-ended:]] == [1] * ended
        assert admitted(limiter, call_of("service:a"), 1) == 0
    for call in calls:
        call.transport.send()  # type: ignore[attr-defined]  # likewise
    assert not limiter._in_flight


def test_memory_is_bounded_by_those_who_called_lately(tmp_path: Path) -> None:
    clock = Clock()
    limiter = limiter_of("[each.checks]\nper_second = 1000", tmp_path, clock)
    for number in range(20_000):
        clock.now += 0.001
        limiter.admit(call_of(connection=f"ipv4:10.{number}:1"))
    assert len(limiter._due) < 10_000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[each", "is not TOML"),
        (
            "[every.checks]\nper_second = 1",
            '`every`; write `[each.<kind>]` or `[callers."service:<id>".<kind>]`',
        ),
        ("each.checks = 5", "each.checks is no limit"),
        ("callers = 5", "it has what is no table of limits"),
        ("[each.chekcs]\nper_second = 1", "each.chekcs is no kind of call; write one of checks, batches"),
        ("[each.checks]\nper_second = 0", "each.checks is no limit: Expected `float` >= "),
        ("[each.checks]\nper_second = 1e-9", "each.checks is no limit: Expected `float` >= "),
        ("[each.checks]\nper_second = inf", "each.checks is no limit: Expected `float` <= "),
        ("[each.checks]\nin_flight = 0", "`int` >= 1 - at `$.in_flight`"),
        (
            "[each.checks]\nper_minute = 1",
            "`per_minute`; write `per_second`, `burst` or `in_flight`, above 0",
        ),
        ("[each.checks]\nburst = 5", "each.checks.burst needs `per_second`"),
        (
            "[callers.notebooks.checks]\nper_second = 1",
            "`notebooks` has no type; write it like `service:",
        ),
        ('[callers."user:maya".checks]\nper_second = 1', "has `user:maya`, a person"),
        ('[callers."service:x".cheks]\nper_second = 1', 'callers."service:x".cheks is no kind of call'),
    ],
)
def test_a_file_that_says_something_else_is_refused_by_its_place(text: str, told: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_limits(text.encode())
    assert told in caught.value.message
