"""A client that behaves, in a process of its own, so that it measures the server and not the load of others:
`python -m tests.faults.honest <address> <seconds>`.

It also calls a server of its own that does nothing. What that call takes is the share of the machine and of
the client in every other figure.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import msgspec
import psutil

from authz.client.errors import error_of
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from tests.faults.greedy import (
    COURSE,
    KINDS,
    OWN_CONNECTION,
    Greedy,
    Stubs,
    greedy_clients,
    member,
    question,
    touch,
)

_CALM_SHARE = 1 / 3
_INTERVAL_S = 0.02
_SAMPLE_S = 0.1
_PATIENCE_S = 60.0
_NOOP = "/idle/Noop"


class Figures(msgspec.Struct):
    """What the honest client saw."""

    checks_ms: list[float] = []
    revocations_ms: list[float] = []
    noops_ms: list[float] = []
    faults: list[str] = []
    sizes_bytes: list[int] = []
    """Memory of the server, ten times a second."""

    @property
    def peak_bytes(self) -> int:
        """The most memory that the server had."""
        return max(self.sizes_bytes, default=0)


class Honest:
    """Checks somebody again and again, and revokes and gives back somebody else's membership between."""

    def __init__(self, stubs: Stubs, noop: Any) -> None:
        self._stubs = stubs
        self._noop = noop
        self.figures = Figures()

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

    async def work(self, seconds: float) -> None:
        """Do so for a time."""
        end_at = time.monotonic() + seconds
        await asyncio.gather(self._check(end_at), self._revoke(end_at), self._call_noop(end_at))

    async def _check(self, end_at: float) -> None:
        """At a steady rate, whatever the answers take: a server that stalls must not be asked less."""
        async with asyncio.TaskGroup() as checks:
            while time.monotonic() < end_at:
                checks.create_task(self._check_once())
                await asyncio.sleep(_INTERVAL_S)

    async def _check_once(self) -> None:
        begun = time.perf_counter()
        try:
            maya = await self._stubs.authorization.Check(question("maya"), timeout=10)
            self.figures.checks_ms.append((time.perf_counter() - begun) * 1e3)
            if not maya.allowed:
                self.figures.faults.append("a check was answered wrongly")
        except grpc.aio.AioRpcError as error:
            self.figures.faults.append(f"check {error.code().name} {error_of(error).reason}")

    async def _revoke(self, end_at: float) -> None:
        omar = member("omar")
        while time.monotonic() < end_at:
            try:
                await self._write(touch(membership=omar))
                begun = time.perf_counter()
                await self._write(dpb.Mutation(operation=dpb.OPERATION_DELETE, membership=omar))
                self.figures.revocations_ms.append((time.perf_counter() - begun) * 1e3)
                if (await self._stubs.authorization.Check(question("omar"), timeout=10)).allowed:
                    self.figures.faults.append("a revocation was acknowledged and is not in effect")
            except grpc.aio.AioRpcError as error:
                self.figures.faults.append(f"write {error.code().name} {error_of(error).reason}")
            await asyncio.sleep(_INTERVAL_S)

    async def _call_noop(self, end_at: float) -> None:
        while time.monotonic() < end_at:
            begun = time.perf_counter()
            await self._noop(b"")
            self.figures.noops_ms.append((time.perf_counter() - begun) * 1e3)
            await asyncio.sleep(_INTERVAL_S)

    async def _write(self, *mutations: dpb.Mutation) -> None:
        await self._stubs.directory.Write(dpb.WriteRequest(mutations=mutations), timeout=10)


def calm_and_greedy(
    address: str, pid: int, seconds: float, kinds: Sequence[Greedy] = KINDS
) -> tuple[Figures, Figures, Counter[str]]:
    """Measure the honest client alone, then with greedy clients; return their outcomes, too."""
    calm = _honest(address, pid, seconds * _CALM_SHARE)
    with greedy_clients(address, seconds, kinds) as outcomes:
        busy = _honest(address, pid, seconds)
        return calm, busy, outcomes()


def _honest(address: str, pid: int, seconds: float) -> Figures:
    command = [sys.executable, "-m", "tests.faults.honest", address, str(seconds)]
    with _sizes(psutil.Process(pid)) as sizes_bytes:
        ran = subprocess.run(command, stdout=subprocess.PIPE, timeout=seconds + _PATIENCE_S, check=True)
    figures = msgspec.json.decode(ran.stdout, type=Figures)
    figures.sizes_bytes = sizes_bytes
    return figures


@contextmanager
def _sizes(server: psutil.Process) -> Iterator[list[int]]:
    """Memory of the server's processes that is not a map of a file, while the block runs."""
    sizes_bytes: list[int] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(_SAMPLE_S):
            used = [each.memory_info() for each in (server, *server.children(recursive=True))]
            sizes_bytes.append(sum(each.rss - each.shared for each in used))

    with ThreadPoolExecutor(1) as pool:
        sampling = pool.submit(sample)
        try:
            yield sizes_bytes
        finally:
            ended.set()
            sampling.result()


def p99(took_ms: list[float]) -> float:
    """The 99th percentile; of few figures, the largest."""
    return statistics.quantiles(took_ms, n=100, method="inclusive")[98] if took_ms[1:] else took_ms[0]


def show_figures(calm: Figures, busy: Figures, outcomes: Counter[str]) -> None:
    """Print ratios and outcomes."""
    for name in ("checks_ms", "revocations_ms", "noops_ms"):
        before, after = getattr(calm, name), getattr(busy, name)
        for what, of in (("p99", p99), ("median", statistics.median)):
            print(
                f"{what} of {name}: calm {of(before):.1f}, greedy {of(after):.1f},"
                f" ratio {of(after) / of(before):.1f}"
            )
    thirds = [busy.sizes_bytes[part * len(busy.sizes_bytes) // 3 :][:1] for part in range(3)]
    sizes = [*(size for part in thirds for size in part), *busy.sizes_bytes[-1:]]
    print(
        f"memory: calm {calm.peak_bytes >> 20} MiB, greedy {busy.peak_bytes >> 20} MiB at most;"
        f" over time {[size >> 20 for size in sizes]}"
    )
    for outcome, count in sorted(outcomes.items()):
        print(f"  {count:>7} {outcome}")


async def _serve_noop() -> tuple[grpc.aio.Server, int]:
    async def noop(_request: bytes, _context: object) -> bytes:
        return b""

    server = grpc.aio.server()
    service, method = _NOOP.strip("/").split("/")
    handlers: dict[str, Any] = {method: grpc.unary_unary_rpc_method_handler(noop)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


async def _run_noop_server() -> None:
    server, port = await _serve_noop()
    print(port, flush=True)
    await server.wait_for_termination()


@contextmanager
def _noop_server() -> Iterator[str]:
    """A server in a process of its own that does nothing."""
    command = [sys.executable, "-m", "tests.faults.honest"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


async def _be_honest(address: str, seconds: float) -> Figures:
    with _noop_server() as idle:
        async with (
            grpc.aio.insecure_channel(address, OWN_CONNECTION) as channel,
            grpc.aio.insecure_channel(idle) as other,
        ):
            honest = Honest(Stubs(channel), other.unary_unary(_NOOP))
            await honest.prepare()
            await honest.work(seconds)
            return honest.figures


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(msgspec.to_builtins(asyncio.run(_be_honest(sys.argv[1], float(sys.argv[2]))))))
    else:
        asyncio.run(_run_noop_server())
