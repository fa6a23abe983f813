"""Print what the service costs over gRPC, how it starts, and how soon a revocation is everywhere."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import msgspec
import psutil
import uvloop

from authz.client import check_request
from authz.domain.entities import Membership, MembershipStatus
from authz.domain.mutations import Mutation, Operation, WriteRequest
from authz.policy.load import load_policy, policy_directory
from authz.runtime.compose import system_clock
from authz.store import open_store
from authz.v1 import authorization_pb2 as apb
from authz.v1 import authorization_pb2_grpc
from tests.bench.campus import Campus
from tests.bench.measure import show
from tests.forkserver import AUTHZ

SERVICE = "/authz.v1.AuthorizationService/"
CALLERS = 16
ROUND_S = 0.7
ROUNDS = 15
QUESTIONS = 20_000
REVOCATIONS = 200
CONNECTIONS = 8
"""To each server, so that all its workers are asked."""


class EmptyServicer(authorization_pb2_grpc.AuthorizationServiceServicer):
    """Answers at once: what gRPC itself costs."""

    def __init__(self, answer: apb.CheckResponse) -> None:
        self._answer = answer

    async def Check(self, request: apb.CheckRequest, context: Any) -> apb.CheckResponse:  # noqa: N802  named by the contract
        """The same messages, no work."""
        del request, context
        return self._answer


async def serve_empty(answer: apb.CheckResponse) -> None:
    """The process of the empty servicer."""
    server = grpc.aio.server()
    authorization_pb2_grpc.add_AuthorizationServiceServicer_to_server(
        EmptyServicer(answer),  # type: ignore[abstract]  # only Check is called
        server,
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"address": f"127.0.0.1:{port}"}), flush=True)
    await server.wait_for_termination()


@contextmanager
def running(command: list[str], **variables: str) -> Iterator[tuple[int, str, list[str]]]:
    """A server process: its id, its address and the lines that it has logged."""
    environ = {**os.environ, "AUTHZ_ADDRESS": "127.0.0.1:0", **variables}
    process = subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    stream, lines = process.stdout, []
    try:
        for line in stream:
            lines.append(line)
            if '"address"' in line:
                threading.Thread(target=stream.read, daemon=True).start()
                yield process.pid, json.loads(line)["address"], lines
                return
        raise AssertionError("".join(lines))
    finally:
        process.kill()
        process.wait()


async def drive(
    address: str,
    pid: int,
    method: str,
    request: Callable[[], bytes],
    metadata: Sequence[tuple[str, str]] = (),
) -> tuple[float, float]:
    """Calls a second with 16 in flight, and the server's microseconds of processor for each."""
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(SERVICE + method)
        for _ in range(100):
            await call(request(), metadata=metadata)
        process = psutil.Process(pid)
        used_s, begun, count = sum(process.cpu_times()[:2]), time.monotonic(), 0

        async def keep_calling() -> None:
            nonlocal count
            while time.monotonic() - begun < ROUND_S:
                await call(request(), metadata=metadata)
                count += 1

        await asyncio.gather(*(keep_calling() for _ in range(CALLERS)))
        elapsed_s = time.monotonic() - begun
        return count / elapsed_s, (sum(process.cpu_times()[:2]) - used_s) / count * 1e6


class Load(NamedTuple):
    """What `drive` takes."""

    address: str
    pid: int
    method: str
    request: Callable[[], bytes]
    metadata: Sequence[tuple[str, str]] = ()


def drive_in_turns(cases: Sequence[Load]) -> list[list[tuple[float, float]]]:
    """In each round what `drive` returns for each case. All take turns, in another order each time."""
    rounds = []
    for _ in range(ROUNDS):
        places = random.sample(range(len(cases)), len(cases))
        found = {place: asyncio.run(drive(*cases[place])) for place in places}
        rounds.append([found[place] for place in range(len(cases))])
    return rounds


def bench_calls(url: str, campus: Campus) -> None:
    """Check against an empty servicer, and BatchCheck, each server in a process of its own.

    The empty one is measured on the event loop that gRPC finds, and on the one that we serve with.
    """
    checks = [check_request(*ids) for ids in campus.questions(QUESTIONS)]
    batch = apb.BatchCheckRequest(items=checks[:100]).SerializeToString()
    single = itertools.cycle([check.SerializeToString() for check in checks]).__next__
    rows = []
    with running([str(AUTHZ), "serve"], AUTHZ_DATABASE_URL=url) as (pid, address, _), ExitStack() as stack:
        with grpc.insecure_channel(address) as channel:
            answer = authorization_pb2_grpc.AuthorizationServiceStub(channel).Check(checks[0])
        command = [sys.executable, "-m", "tests.bench.serving", "empty", answer.SerializeToString().hex()]
        bare_pid, bare_address, _ = stack.enter_context(running(command))
        same_pid, same_address, _ = stack.enter_context(running([*command, "uvloop"]))
        for _ in range(ROUNDS):
            bare = asyncio.run(drive(bare_address, bare_pid, "Check", single))
            ours = asyncio.run(drive(address, pid, "Check", single))
            same = asyncio.run(drive(same_address, same_pid, "Check", single))
            many = asyncio.run(drive(address, pid, "BatchCheck", lambda: batch))
            rows.append((bare, same, ours, many))
    show_calls(rows)


def show_calls(rows: Sequence[tuple[tuple[float, float], ...]]) -> None:
    """Print medians over the rounds: of each figure, and of each ratio within a round."""

    def median(figure: Callable[..., float]) -> float:
        return statistics.median(figure(*row) for row in rows)

    show("gRPC: empty servicer, 16 in flight", f"{median(lambda bare, *_: bare[0]):,.0f} /s")
    show("gRPC: Check, any question of the campus", f"{median(lambda _b, _s, ours, _m: ours[0]):,.0f} /s")
    ratio = median(lambda bare, _s, ours, _m: ours[0] / bare[0])
    show("gRPC: Check against the empty servicer, by rate", f"{ratio:.0%}", "goal 80%")
    ratio = median(lambda bare, _s, ours, _m: bare[1] / ours[1])
    show("gRPC: the same, by the server's processor", f"{ratio:.0%}")
    ratio = median(lambda _b, same, ours, _m: ours[0] / same[0])
    show("gRPC: Check against an empty servicer on uvloop, by rate", f"{ratio:.0%}")
    ratio = median(lambda _b, same, ours, _m: same[1] / ours[1])
    show("gRPC: the same, by the server's processor", f"{ratio:.0%}")
    decisions = median(lambda _b, _s, _o, many: 1e8 / many[1])
    show("gRPC: BatchCheck of 100, decisions a second of one core", f"{decisions:,.0f}", "goal 60,000")


def bench_start(url: str) -> None:
    """The first start builds the replica from a dump of the database; the second finds it."""
    with running([str(AUTHZ), "serve"], AUTHZ_DATABASE_URL=url) as (_, _, lines):
        built = next(json.loads(line) for line in lines if "replica built" in line)
    show(
        "building the replica from a dump of SQLite", f"{built['elapsed_s']:.1f} s", "goal 20 s at 1,000,000"
    )
    begun = time.monotonic()
    with running([str(AUTHZ), "serve"], AUTHZ_DATABASE_URL=url):
        show("start with an existing replica", f"{time.monotonic() - begun:.2f} s", "goal 2 s")


async def denial_ms(
    addresses: Sequence[str], campus: Campus, write: Callable[[Membership], object]
) -> list[float]:
    """For some members: from the commit that suspends one until every connection denies it."""
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
            )
            for address in addresses
            for _ in range(CONNECTIONS)
        ]
        stubs: list[Any] = [authorization_pb2_grpc.AuthorizationServiceStub(channel) for channel in channels]

        async def until(stub: Any, question: apb.CheckRequest, *, allowed: bool) -> None:
            while (await stub.Check(question)).allowed is not allowed:
                pass

        took_ms = []
        for number in range(REVOCATIONS):
            member = campus.member(number)
            question = check_request(str(member.subject), "read", str(campus.notebook(number).key))
            await asyncio.gather(*(until(stub, question, allowed=True) for stub in stubs))
            suspended = msgspec.structs.replace(member, status=MembershipStatus.SUSPENDED)
            await asyncio.to_thread(write, suspended)
            begun = time.monotonic()
            await asyncio.gather(*(until(stub, question, allowed=False) for stub in stubs))
            took_ms.append((time.monotonic() - begun) * 1e3)
        return sorted(took_ms)


def bench_revocation(url: str, campus: Campus) -> None:
    """From the commit of a revocation, by another process, until every worker of two servers denies."""
    policy = load_policy(policy_directory())
    store = open_store(url, vocabularies=lambda *_: policy.vocabulary, clock=system_clock)

    def write(member: Membership) -> None:
        store.directory.write(WriteRequest(mutations=(Mutation(Operation.TOUCH, member),)))

    with (
        running([str(AUTHZ), "serve", "--workers", "2"], AUTHZ_DATABASE_URL=url) as (_, one, _),
        running([str(AUTHZ), "serve"], AUTHZ_DATABASE_URL=url) as (_, other, _),
    ):
        took_ms = asyncio.run(denial_ms((one, other), campus, write))
    store.close()
    show(
        "from a commit to its denial in every worker of two servers, median",
        f"{took_ms[REVOCATIONS // 2]:.1f} ms",
    )
    show("the same, 99th percentile", f"{took_ms[REVOCATIONS * 99 // 100]:.1f} ms", "goal 50 ms")


def main(size: int) -> None:
    """All of it over one SQLite database of a campus."""
    campus = Campus(size)
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as folder:
        url = campus.fill_sqlite(Path(folder) / "bench.db")
        bench_start(url)
        bench_calls(url, campus)
        bench_revocation(url, campus)


if __name__ == "__main__":
    if sys.argv[1:2] == ["empty"]:
        run = uvloop.run if sys.argv[3:] == ["uvloop"] else asyncio.run
        run(serve_empty(apb.CheckResponse.FromString(bytes.fromhex(sys.argv[2]))))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 1_000_000)
