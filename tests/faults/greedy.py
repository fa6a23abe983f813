"""Clients that take all that they can get, six of each kind, and one that behaves: for a test and a bench.

The greedy ones are a process of their own with low priority, so that the processor which they need themselves
is not what the others wait for: `python -m tests.faults.greedy <address> <seconds>`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from authz.client import check_request
from authz.client.aio.transport import answer_to
from authz.domain.tokens import ConsistencyToken
from authz.v1 import authorization_pb2 as apb
from authz.v1 import authorization_pb2_grpc, directory_pb2_grpc, watch_pb2_grpc
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import watch_pb2 as wpb
from tests.tokens import made_up, state_of

CLIENTS_A_KIND = 6
STREAMS = 16
"""Imports and watches that one greedy client opens at once."""
COURSE = "honest"
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
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

    def parts() -> Iterator[dpb.ImportRequest]:
        for _ in range(3):
            stamp = str(time.time_ns())
            members = [member(f"i{number}", "greedy") for number in range(1000)]
            for each in members:
                each.source_ref = stamp
            yield dpb.ImportRequest(mutations=[touch(membership=each) for each in members])

    # gRPC itself would say INTERNAL where an import is shed while it is sent.
    await answer_to(stubs.directory.Import, parts(), None)


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


def kind_name(kind: Greedy) -> str:
    """What the outcomes call it."""
    return str(getattr(kind, "__name__", ""))


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
    name = kind_name(kind)
    async with grpc.aio.insecure_channel(address, OWN_CONNECTION) as channel:
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


async def _all_greedy(address: str, seconds: float, names: Sequence[str]) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    end_at = time.monotonic() + seconds
    kinds = [kind for kind in KINDS if kind_name(kind) in names]
    clients = (_be_greedy(address, kind, end_at, outcomes) for kind in kinds for _ in range(CLIENTS_A_KIND))
    await asyncio.gather(*clients)
    return outcomes


@contextmanager
def greedy_clients(
    address: str, seconds: float, kinds: Sequence[Greedy] = KINDS
) -> Iterator[Callable[[], Counter[str]]]:
    """Six of each kind, for so long. Yields what waits for their end and counts their outcomes by kind."""
    names = (kind_name(kind) for kind in kinds)
    command = [sys.executable, "-m", "tests.faults.greedy", address, str(seconds), *names]
    # gRPC complains of each stream that is abandoned.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield lambda: Counter(json.loads(process.communicate(timeout=seconds + 60)[0]))
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    os.nice(19)
    print(json.dumps(asyncio.run(_all_greedy(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))))
