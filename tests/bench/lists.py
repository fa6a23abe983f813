"""Print what lists cost, what a user may read and who may read: in process, and what a user may read over the
default transport.

    python -m tests.bench.lists [memberships ...]
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from operator import attrgetter
from pathlib import Path
from typing import Any

import grpc

from authz.domain.decisions import Question
from authz.domain.entities import Kind, Membership, Resource, Visibility
from authz.domain.ids import ResourceRef, Subject, SubjectType, course_scope
from authz.domain.lists import ResourceQuery
from authz.engine.check import Checker
from authz.engine.lists import ListPage, ResourcePage, SubjectPage
from authz.policy.load import load_policy, policy_directory
from authz.replica.view import ReplicaView
from authz.runtime.compose import system_clock
from authz.runtime.tuning import tune_interpreter
from authz.v1 import authorization_pb2 as apb
from authz.v1 import authorization_pb2_grpc, common_pb2
from tests.bench.caller import Load
from tests.bench.campus import Campus
from tests.bench.measure import cost_us, show
from tests.bench.replica import built
from tests.bench.serving import running
from tests.bench.transports import ask as ask_server
from tests.forkserver import AUTHZ

MEMBERS, NOTEBOOKS, COURSES_OF_A_USER = 100, 20, 4
READABLE = NOTEBOOKS * COURSES_OF_A_USER
ROUNDS = 5
ROUND_S = 2.0
LISTS = 1000
CALLED_SIZE = 100_000
FIRST_PAGE = 50
ANYBODY = Subject(SubjectType.USER, "-")
ListOf = Callable[[ReplicaView, int], ListPage[Any]]


class ListCampus(Campus):
    """`size` memberships: each user in 4 courses of 100 members and 20 notebooks, open to the course."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.users = size // COURSES_OF_A_USER
        self.notebooks = self.courses * NOTEBOOKS

    def entities(self, kind: Kind, by: str = "") -> Iterator[Any]:
        """See `Dump.entities`."""
        if kind.entity is Resource:
            return map(self.notebook, range(self.notebooks))
        return super().entities(kind, by)

    def values(self, kind: Kind, fields: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """See `Dump.values`. No notebook has an owner."""
        if kind.entity is Resource:
            return iter(()) if fields[0] == "owner" else map(attrgetter(*fields), self.entities(kind))
        numbers: Iterable[int] = sorted(range(self.size), key=self._course_of)
        return map(attrgetter(*fields), map(self.member, numbers)) if kind.entity is Membership else iter(())

    def member(self, number: int) -> Membership:
        """The membership of a number: four in a row are of one user."""
        user = f"u{number // COURSES_OF_A_USER:08d}"
        scope = course_scope(f"c{self._course_of(number):07d}")
        return Membership(subject=Subject(SubjectType.USER, user), scope=scope, role="student")

    def notebook(self, number: int) -> Resource:
        """The notebook of a number: twenty in a row are of one course."""
        return Resource(
            type="notebook",
            id=f"n{number:08d}",
            scope=course_scope(f"c{number // NOTEBOOKS:07d}"),
            visibility=Visibility.COURSE,
            created_at=1_700_000_000_000_000,
        )

    def _course_of(self, number: int) -> int:
        user, which = divmod(number, COURSES_OF_A_USER)
        return (user + which * (self.courses // COURSES_OF_A_USER)) % self.courses


def lists_of(checker: Checker, size: int = 1000) -> tuple[ListOf, ListOf]:
    """The page of what the user of a number may read, and of who may read the notebook of a number."""

    def resources(view: ReplicaView, number: int) -> ListPage[Any]:
        query = ResourceQuery(Subject(SubjectType.USER, f"u{number:08d}"), "read", ("notebook",))
        return ResourcePage(checker, view.snapshot(), system_clock(), query, size)

    def subjects(view: ReplicaView, number: int) -> ListPage[Any]:
        question = Question(ANYBODY, "read", ResourceRef("notebook", f"n{number:08d}"))
        return SubjectPage(checker, view.snapshot(), system_clock(), question, size)

    return resources, subjects


def list_us(view: ReplicaView, made: ListOf, items: int, numbers: Sequence[int]) -> float:
    """Microseconds of processor time of one whole page, with what it reads in memory."""

    def run(number: int) -> None:
        found = [each for each in made(view, number) if each is not None]
        assert len(found) == items

    for number in numbers:
        run(number)
    return cost_us(run, numbers, a_round=50, clock=time.thread_time)[0]


def bench_calls(folder: Path, size: int) -> None:
    """What a user may read, of a server on one core; the client has another."""
    os.sched_setaffinity(0, {0})  # and what it starts, but the caller
    campus, chance = ListCampus(size), random.Random(1)
    requests = [
        apb.ListResourcesRequest(
            subject=common_pb2.Subject(
                type=common_pb2.SUBJECT_TYPE_USER, id=f"u{chance.randrange(campus.users):08d}"
            ),
            action="read",
            types=["notebook"],
        )
        for _ in range(LISTS)
    ]
    url = campus.fill_sqlite(folder / "bench.db")
    with running([str(AUTHZ), "serve"], AUTHZ_DATABASE_URL=url, AUTHZ_LOG_LEVEL="info") as (pid, address, _):
        with grpc.insecure_channel(address) as channel:
            answer = authorization_pb2_grpc.AuthorizationServiceStub(channel).ListResources(requests[0])
            assert len(answer.resources) == READABLE
        load = Load(
            address=address,
            method="/authz.v1.AuthorizationService/ListResources",
            messages=[each.SerializeToString() for each in requests],
            seconds=ROUND_S,
            connections=8,
            streams=10,
        )
        rows = [ask_server(load, pid, folder) for _ in range(ROUNDS)]
    rate, used_us = (
        statistics.median(each) for each in ([r.measured.rate for r in rows], [r.used_us for r in rows])
    )
    show(
        f"{size:>10,} memberships: lists of {READABLE} resources over gRPC",
        f"{rate:,.0f} /s, {used_us:.0f} us of processor",
        "4,000 /s",
    )


def main(sizes: tuple[int, ...]) -> None:
    """For each size, the cost of both lists for each item; then lists a second, and a first page."""
    checker = Checker(load_policy(policy_directory()))
    resources, subjects = lists_of(checker)
    first, _ = lists_of(checker, FIRST_PAGE)
    chance = random.Random(1)
    with ExitStack() as stack:
        cases = []
        for size in sizes:
            campus = ListCampus(size)
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="authz-bench-"))
            view = built(campus, Path(folder))
            stack.callback(view.close)
            users = [chance.randrange(campus.users) for _ in range(LISTS)]
            notebooks = [chance.randrange(campus.notebooks) for _ in range(LISTS)]
            cases += [
                (view, resources, READABLE, users),
                (view, subjects, MEMBERS, notebooks),
                (view, first, FIRST_PAGE, users),
            ]
        tune_interpreter()  # as a server does
        rounds = [[list_us(*case) for case in cases] for _ in range(ROUNDS)]
    costs = [statistics.median(took) for took in zip(*rounds, strict=True)]
    for number, size in enumerate(sizes):
        whole_us, who_us, first_us = costs[3 * number : 3 * number + 3]
        show(
            f"{size:>10,} memberships: lists of {READABLE} resources", f"{1e6 / whole_us:,.0f} /s", "4,000 /s"
        )
        show(f"{'':>10} ListResources, each item", f"{whole_us / READABLE:.2f} us", "3 us")
        show(f"{'':>10} ListSubjects, each item", f"{who_us / MEMBERS:.2f} us", "3 us")
        show(f"{'':>10} the first page of {FIRST_PAGE} resources", f"{first_us:,.0f} us", "1,000 us")
    for name, place in (("ListResources", 0), ("ListSubjects", 1)):
        ratio = costs[len(costs) - 3 + place] / costs[place]
        show(f"{name} at {sizes[-1]:,} against {sizes[0]:,}", f"{ratio:.2f}x", "1.5x at 10,000,000")
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as name:
        bench_calls(Path(name), CALLED_SIZE)


if __name__ == "__main__":
    main(tuple(int(size) for size in sys.argv[1:]) or (10_000, 100_000, 1_000_000))
