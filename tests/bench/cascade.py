"""Print what revocations wait for beside the deletion of a large course, and beside a large import.

    python -m tests.bench.cascade 1000000 [--postgresql]

Two workers, on SQLite or on a PostgreSQL that this starts. A revocation is in effect once no connection is
answered with what was before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
from sqlalchemy import text

from authz.client import check_request
from authz.domain.entities import Course, CourseKey, CourseState, Entity, Membership, Resource, Visibility
from authz.domain.ids import course_scope
from authz.domain.mutations import Mutation, Operation
from authz.domain.origin import Origin
from authz.store.database.engine import open_engine, write_transaction
from authz.v1 import authorization_pb2_grpc, directory_pb2_grpc
from authz.v1 import directory_pb2 as dpb
from authz.wire.entities import mutation_message
from tests.bench.measure import show
from tests.databases import create_sqlite, running_postgresql
from tests.faults.processes import CHANNEL_OPTIONS, Node, running
from tests.store.directory import open_with, user
from tests.waiting import until

WORKERS = 2
CONNECTIONS = 8
"""Enough that every worker has some of them."""
PAUSE_S = 0.05
PER_MESSAGE = 1000
PER_INSERT = 10_000
INSERT = text(
    "INSERT INTO memberships (scope_kind, scope_id, subject_type, subject_id, role, status, source,"
    " source_ref, revision) VALUES ('course', 'large', 'user', :name, 'student', 'ACTIVE', '', '', 1)"
)
SMALL: list[Entity] = [
    Course(id="small", state=CourseState.ACTIVE),
    Course(id="large", state=CourseState.ACTIVE),
    Course(id="imported", state=CourseState.ACTIVE),
    Resource(type="notebook", id="n", scope=course_scope("small"), visibility=Visibility.COURSE),
]
_numbers = itertools.count()


def student(name: str, course_id: str) -> Membership:
    """A student of a course."""
    return Membership(subject=user(name), scope=course_scope(course_id), role="student")


def fill(url: str, members: int) -> None:
    """Courses, of which `large` has many members, stored without a log: the replica is built without one."""
    store = open_with(url)
    mutations = [Mutation(Operation.CREATE, entity) for entity in SMALL]
    store.directory.import_batch(mutations, offset=0, origin=Origin(""))
    store.close()
    engine = open_engine(url)
    with write_transaction(engine) as connection:
        for first in range(0, members, PER_INSERT):
            numbers = range(first, min(first + PER_INSERT, members))
            connection.execute(INSERT, [{"name": f"member-{number:09}"} for number in numbers])
    engine.dispose()


class Server:
    """A server with connections to all of its workers."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.channels = [grpc.aio.insecure_channel(node.address, CHANNEL_OPTIONS) for _ in range(CONNECTIONS)]
        self.checks: list[Any] = [
            authorization_pb2_grpc.AuthorizationServiceStub(channel).Check for channel in self.channels
        ]
        self.directory: Any = directory_pb2_grpc.DirectoryServiceStub(self.channels[0])

    async def write(self, *mutations: Mutation) -> float:
        """Seconds until a write is acknowledged."""
        begun = time.perf_counter()
        await self.directory.Write(dpb.WriteRequest(mutations=map(mutation_message, mutations)), timeout=120)
        return time.perf_counter() - begun

    async def denied_everywhere(self, name: str) -> float:
        """Seconds until the last answer of any connection that still allows: 0 if there is none."""
        begun, last_allowed_s = time.perf_counter(), 0.0
        request = check_request(f"user:{name}", "read", "notebook:n")
        while any(answer.allowed for answer in await asyncio.gather(*(ask(request) for ask in self.checks))):
            last_allowed_s = time.perf_counter() - begun
        return last_allowed_s

    def memory(self) -> tuple[int, int]:
        """Bytes of all processes: resident, and resident without mapped files."""
        resident = own = 0
        for process in (psutil.Process(self.node.process.pid), *self.node.children()):
            with contextlib.suppress(psutil.NoSuchProcess):
                info = process.memory_info()
                resident += info.rss
                own += info.rss - info.shared
        return resident, own


async def beside(server: Server, label: str, work: Callable[[], Awaitable[object]]) -> None:
    """Revoke all the time while some work goes on; print what the revocations waited for."""
    at_rest = server.memory()
    acknowledged: list[float] = []
    in_effect: list[float] = []
    peak = at_rest
    task = asyncio.ensure_future(work())
    while not task.done():
        member = student(f"v{next(_numbers)}", "small")
        await server.write(Mutation(Operation.CREATE, member))
        acknowledged.append(await server.write(Mutation(Operation.DELETE, member.key)))
        in_effect.append(await server.denied_everywhere(member.subject.id))
        now = server.memory()
        peak = (max(peak[0], now[0]), max(peak[1], now[1]))
        await asyncio.sleep(PAUSE_S)
    await task
    acknowledged.sort()
    in_effect.sort()
    p50, p99 = (acknowledged[int(len(acknowledged) * share)] for share in (0.5, 0.99))
    values = f"{p50 * 1000:,.0f} / {p99 * 1000:,.0f} / {acknowledged[-1] * 1000:,.0f} ms"
    show(f"{label}: revocation acknowledged, p50 / p99 / max of {len(acknowledged)}", values, "goal 1 s")
    effect = in_effect[int(len(in_effect) * 0.99)] * 1000
    show(f"{label}: from then until the last answer that allows, p99", f"{effect:,.0f} ms", "goal 50 ms")
    for name, before, after in zip(("resident", "without mapped files"), at_rest, peak, strict=True):
        sizes = f"{before / 1e6:,.0f} / {after / 1e6:,.0f} MB"
        show(f"{label}: memory at rest / at most, {name}", sizes, "goal twice that of rest")


async def delete(server: Server, url: str) -> None:
    """Delete the large course; return once all that was in it is removed."""
    elapsed_s = await server.write(Mutation(Operation.DELETE, CourseKey("large")))
    show("deletion of the large course: acknowledged", f"{elapsed_s * 1000:,.0f} ms")
    store = open_with(url)
    await asyncio.to_thread(until, lambda: store.directory.removal_progress() is None, "complete", 3600)
    store.close()


async def import_members(server: Server, members: int) -> None:
    """Import as many members as the large course had."""

    def messages() -> Iterator[dpb.ImportRequest]:
        for start in range(0, members, PER_MESSAGE):
            many = (
                student(f"member-{n:09}", "imported") for n in range(start, min(members, start + PER_MESSAGE))
            )
            yield dpb.ImportRequest(
                mutations=[mutation_message(Mutation(Operation.TOUCH, each)) for each in many]
            )

    await server.directory.Import(messages())


async def measure(node: Node, url: str, members: int) -> None:
    """Calm, then beside the deletion, then beside the import."""
    server = Server(node)
    await beside(server, "calm", lambda: asyncio.sleep(5))
    begun = time.perf_counter()
    await beside(server, f"deleting {members:,} members", lambda: delete(server, url))
    show(f"deleting {members:,} members: complete", f"{time.perf_counter() - begun:,.0f} s")
    begun = time.perf_counter()
    await beside(server, f"importing {members:,} members", lambda: import_members(server, members))
    show(f"importing {members:,} members: complete", f"{time.perf_counter() - begun:,.0f} s")
    for channel in server.channels:
        await channel.close()


def main(members: int = 20_000, workers: int = WORKERS, *, postgresql: bool = False) -> None:
    """One server, one run."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if postgresql:
            url = stack.enter_context(running_postgresql()).create("authz")
        else:
            url = create_sqlite(Path(folder) / "authz.db")
        fill(url, members)
        node = Node("server", url, Path(folder), AUTHZ_WORKERS=str(workers))
        with running(node):
            asyncio.run(measure(node, url, members))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("members", type=int, nargs="?", default=20_000)
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--postgresql", action="store_true")
    options = parser.parse_args()
    main(options.members, options.workers, postgresql=options.postgresql)
