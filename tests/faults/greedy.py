"""Clients that take all that they can get, six of each kind, and one that behaves: for a test and a bench.

The greedy ones are a process of their own with low priority, so that the processor which they need themselves
is not what the others wait for: `python -m tests.faults.greedy <address> <seconds>`.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import msgspec
import psutil

from authz.client import check_request
from authz.client.errors import error_of
from authz.domain.tokens import ConsistencyToken
from authz.v1 import authorization_pb2 as apb
from authz.v1 import authorization_pb2_grpc, directory_pb2_grpc, watch_pb2_grpc
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import watch_pb2 as wpb
from tests.forkserver import Process
from tests.tokens import made_up, state_of

CLIENTS_A_KIND = 6
STREAMS = 16
"""Imports and watches that one greedy client opens at once."""
COURSE = "honest"
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
_HUGE = b"\x12\x00" * 2_000_000
_PAUSE_S = 0.005
_LONG_S = 3600.0

Greedy = Callable[["Stubs"], Awaitable[object]]


class Stubs:
    """A connection of its own."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel: Any = channel
        self.authorization: Any = authorization_pb2_grpc.AuthorizationServiceStub(channel)
        self.directory: Any = directory_pb2_grpc.DirectoryServiceStub(channel)
        self.watch: Any = watch_pb2_grpc.WatchServiceStub(channel)


def question(user: str) -> apb.CheckRequest:
    """May the user read the material of the honest course?"""
    return check_request(f"user:{user}", "read", "material:m-honest")


def touch(**entity: Any) -> dpb.Mutation:
    """TOUCH."""
    return dpb.Mutation(operation=dpb.OPERATION_TOUCH, **entity)


def member(user: str, course: str = COURSE) -> pb.Membership:
    """A student."""
    return pb.Membership(
        subject=pb.Subject(type=pb.SUBJECT_TYPE_USER, id=user),
        scope=pb.Scope(course_id=course),
        role="student",
    )


async def huge_lists(stubs: Stubs) -> None:
    """Two million items where a thousand are allowed."""
    for method in ("AuthorizationService/BatchCheck", "DirectoryService/ReadCourses"):
        await _refused(stubs.channel.unary_unary(f"/authz.v1.{method}")(_HUGE))
    await _refused(anext(aiter(stubs.channel.unary_stream("/authz.v1.WatchService/Watch")(_HUGE))))


async def silent_imports(stubs: Stubs) -> None:
    """Many streams that send nothing."""

    async def silent() -> AsyncIterator[dpb.ImportRequest]:
        await asyncio.Event().wait()
        yield dpb.ImportRequest()

    await asyncio.gather(*(stubs.directory.Import(silent(), timeout=_LONG_S) for _ in range(STREAMS)))


async def forged_tokens(stubs: Stubs) -> None:
    """Checks that would wait for an hour, if somebody believed their token; and the log from its start."""
    read = await stubs.directory.ReadCourses(dpb.ReadCoursesRequest(page_size=1))
    known = state_of(read.read_at.token)
    future = pb.ConsistencyToken(token=made_up(ConsistencyToken(known.database_id, known.revision + 10**9)))
    request = question("maya")
    request.consistency.at_least_as_fresh.CopyFrom(future)
    calls = (_refused(stubs.authorization.Check(request, timeout=_LONG_S)) for _ in range(STREAMS))
    await asyncio.gather(*calls)
    start = pb.ConsistencyToken(token=made_up(ConsistencyToken(known.database_id, 0)))
    await _refused(anext(aiter(stubs.watch.Watch(wpb.WatchRequest(after=start)))))


async def huge_batches(stubs: Stubs) -> None:
    """As many questions as a batch may have."""
    items = [question(f"u{number}") for number in range(1000)]
    await stubs.authorization.BatchCheck(apb.BatchCheckRequest(items=items))


async def fully_consistent_checks(stubs: Stubs) -> None:
    """Each needs the head of the database."""
    request = question("maya")
    request.consistency.fully_consistent = True
    await asyncio.gather(*(stubs.authorization.Check(request) for _ in range(STREAMS)))


async def costly_reads(stubs: Stubs) -> None:
    """A filter that no record matches."""
    await asyncio.gather(
        *(stubs.directory.ReadMemberships(dpb.ReadMembershipsRequest(source="nowhere")) for _ in range(4))
    )


async def large_pages(stubs: Stubs) -> None:
    """As many records as a page may have."""
    await stubs.directory.ReadMemberships(dpb.ReadMembershipsRequest(page_size=1000))


async def watches_that_do_not_read(stubs: Stubs) -> None:
    """Streams that are opened and left alone."""
    streams = [stubs.watch.Watch(wpb.WatchRequest()) for _ in range(STREAMS)]
    await asyncio.sleep(1)
    for stream in streams:
        stream.cancel()


async def large_writes(stubs: Stubs) -> None:
    """A thousand changes at once."""
    stamp = str(time.time_ns())
    members = [member(f"w{number}", "greedy") for number in range(1000)]
    for each in members:
        each.source_ref = stamp
    await stubs.directory.Write(dpb.WriteRequest(mutations=[touch(membership=each) for each in members]))


async def large_imports(stubs: Stubs) -> None:
    """Message after message of a thousand changes."""

    async def parts() -> AsyncIterator[dpb.ImportRequest]:
        for _ in range(3):
            stamp = str(time.time_ns())
            members = [member(f"i{number}", "greedy") for number in range(1000)]
            for each in members:
                each.source_ref = stamp
            yield dpb.ImportRequest(mutations=[touch(membership=each) for each in members])

    await stubs.directory.Import(parts())


KINDS: tuple[Greedy, ...] = (
    huge_lists,
    silent_imports,
    forged_tokens,
    huge_batches,
    fully_consistent_checks,
    costly_reads,
    large_pages,
    watches_that_do_not_read,
    large_writes,
    large_imports,
)


async def _refused(call: Awaitable[object]) -> None:
    """Await a call that must be refused as a bad request, or shed."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        if error.code() not in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED):
            raise
    else:
        raise AssertionError("a bad request was answered")


async def _be_greedy(address: str, kind: Greedy, end_at: float, outcomes: Counter[str]) -> None:
    name = getattr(kind, "__name__", "")
    async with grpc.aio.insecure_channel(address, _OWN_CONNECTION) as channel:
        while (left_s := end_at - time.monotonic()) > 0:
            outcome = "OK"
            try:
                async with asyncio.timeout(left_s):
                    await kind(Stubs(channel))
            except TimeoutError:
                return
            except grpc.aio.AioRpcError as error:
                outcome = error.code().name
            except AssertionError as error:
                outcome = str(error)
            outcomes[f"{name} {outcome}"] += 1
            await asyncio.sleep(_PAUSE_S)


async def _all_greedy(address: str, seconds: float) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    end_at = time.monotonic() + seconds
    clients = (_be_greedy(address, kind, end_at, outcomes) for kind in KINDS for _ in range(CLIENTS_A_KIND))
    await asyncio.gather(*clients)
    return outcomes


def drain(process: Process) -> None:
    """Read the log of a server to its end, so that the server never waits for a reader."""
    assert process.stderr is not None
    threading.Thread(target=process.stderr.read, daemon=True).start()


@contextmanager
def greedy_clients(address: str, seconds: float) -> Iterator[Callable[[], Counter[str]]]:
    """Six of each kind, for so long. Yields what waits for their end and counts their outcomes by kind."""
    command = [sys.executable, "-m", "tests.faults.greedy", address, str(seconds)]
    # gRPC complains of each stream that is abandoned.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield lambda: Counter(json.loads(process.communicate(timeout=seconds + 60)[0]))
    finally:
        process.kill()
        process.wait()


class Figures(msgspec.Struct):
    """What the honest client saw."""

    checks_ms: list[float] = []
    revocations_ms: list[float] = []
    faults: list[str] = []
    peak_bytes: int = 0

    def p99_ms(self, took_ms: list[float]) -> float:
        """The 99th percentile."""
        return statistics.quantiles(took_ms, n=100)[98]


class Honest:
    """Checks somebody again and again, and revokes and gives back somebody else's membership between."""

    def __init__(self, stubs: Stubs, server: psutil.Process) -> None:
        self._stubs = stubs
        self._server = server

    async def prepare(self) -> None:
        """Write what it asks about."""
        material = pb.Resource(
            type="material", id="m-honest", scope=pb.Scope(course_id=COURSE), published=True
        )
        await self._write(
            *(touch(course=pb.Course(id=name, state=pb.COURSE_STATE_ACTIVE)) for name in (COURSE, "greedy")),
            touch(resource=material),
            touch(membership=member("maya")),
        )

    async def work(self, seconds: float) -> Figures:
        """Do so for a time."""
        figures = Figures()
        end_at = time.monotonic() + seconds
        await asyncio.gather(self._check(figures, end_at), self._revoke(figures, end_at))
        return figures

    async def _check(self, figures: Figures, end_at: float) -> None:
        while time.monotonic() < end_at:
            begun = time.perf_counter()
            try:
                maya = await self._stubs.authorization.Check(question("maya"), timeout=10)
                figures.checks_ms.append((time.perf_counter() - begun) * 1e3)
                stranger = await self._stubs.authorization.Check(question("stranger"), timeout=10)
                if not maya.allowed or stranger.allowed:
                    figures.faults.append("a check was answered wrongly")
            except grpc.aio.AioRpcError as error:
                figures.faults.append(f"check {error.code().name} {error_of(error).reason}")
            figures.peak_bytes = max(figures.peak_bytes, _size_bytes(self._server))
            await asyncio.sleep(_PAUSE_S)

    async def _revoke(self, figures: Figures, end_at: float) -> None:
        omar = member("omar")
        while time.monotonic() < end_at:
            try:
                await self._write(touch(membership=omar))
                begun = time.perf_counter()
                await self._write(dpb.Mutation(operation=dpb.OPERATION_DELETE, membership=omar))
                figures.revocations_ms.append((time.perf_counter() - begun) * 1e3)
                if (await self._stubs.authorization.Check(question("omar"), timeout=10)).allowed:
                    figures.faults.append("a revocation was acknowledged and is not in effect")
            except grpc.aio.AioRpcError as error:
                figures.faults.append(f"write {error.code().name} {error_of(error).reason}")
            await asyncio.sleep(4 * _PAUSE_S)

    async def _write(self, *mutations: dpb.Mutation) -> None:
        await self._stubs.directory.Write(dpb.WriteRequest(mutations=mutations), timeout=10)


def _size_bytes(server: psutil.Process) -> int:
    """Memory of the server's processes that is not a map of a file."""
    total = 0
    for process in (server, *server.children(recursive=True)):
        used = process.memory_info()
        total += used.rss - used.shared
    return total


async def calm_and_greedy(address: str, pid: int, seconds: float) -> tuple[Figures, Figures, Counter[str]]:
    """The honest client alone, then among greedy ones; and the outcomes of those."""
    async with grpc.aio.insecure_channel(address, _OWN_CONNECTION) as channel:
        honest = Honest(Stubs(channel), psutil.Process(pid))
        await honest.prepare()
        calm = await honest.work(seconds / 3)
        with greedy_clients(address, seconds) as outcomes:
            busy = await honest.work(seconds)
            return calm, busy, await asyncio.to_thread(outcomes)


def show_figures(calm: Figures, busy: Figures, outcomes: Counter[str]) -> None:
    """Print ratios and outcomes."""
    for name in ("checks_ms", "revocations_ms"):
        before, after = (each.p99_ms(getattr(each, name)) for each in (calm, busy))
        print(f"p99 of {name}: calm {before:.1f}, greedy {after:.1f}, ratio {after / before:.1f}")
    print(f"memory: calm {calm.peak_bytes >> 20} MiB, greedy {busy.peak_bytes >> 20} MiB at most")
    for outcome, count in sorted(outcomes.items()):
        print(f"  {count:>7} {outcome}")


if __name__ == "__main__":
    os.nice(19)
    print(json.dumps(asyncio.run(_all_greedy(sys.argv[1], float(sys.argv[2])))))
