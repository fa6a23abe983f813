"""Print what a question about the past costs, by the length of the change log."""

from __future__ import annotations

import datetime as dt
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from authz.client import Client
from authz.domain.entities import Course, CourseState, Membership, Resource
from authz.domain.ids import Subject, SubjectType, course_scope
from authz.domain.mutations import Mutation, Operation
from authz.testing.service import Template
from tests.bench.measure import show

MEMBERS = 1000
ROUNDS = 7


def main(sizes: tuple[int, ...] = (10_000, 100_000)) -> None:
    """For each number of memberships, in courses of a thousand: the median of some questions about one."""
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            template = Template(Path(folder) / "template")
            with template.start(Path(folder) / "service") as service:
                service.client.import_mutations(_campus(size))
                explained, now, listed = _costs_s(service.client.with_options(timeout_s=30))
        name = f"the past, a log of {size:,} changes, {MEMBERS:,} of them of the course"
        show(f"{name}: Explain", f"{explained * 1000:,.0f} ms, now {now * 1000:.1f} ms")
        show(f"{name}: ListSubjects, {MEMBERS:,} subjects", f"{listed * 1000:,.0f} ms")


def _costs_s(client: Client) -> tuple[float, float, float]:
    """Of Explain about the past, of Explain, and of ListSubjects about the past."""
    then = dt.datetime.now(dt.UTC)
    asked = ("user:u0", "read", "material:m0")
    return (
        _median_s(lambda: client.explain(*asked, as_of=then)),
        _median_s(lambda: client.explain(*asked)),
        _median_s(lambda: _readers(client, then)),
    )


def _readers(client: Client, then: dt.datetime) -> None:
    found = list(client.list_subjects("read", "material:m0", as_of=then))
    if len(found) != MEMBERS:
        raise AssertionError(f"{len(found)} subjects")


def _median_s(call: Callable[[], object]) -> float:
    costs = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        costs.append(time.perf_counter() - start)
    return statistics.median(costs)


def _campus(size: int) -> Iterator[Mutation]:
    for number in range(size // MEMBERS):
        scope = course_scope(f"c{number}")
        yield Mutation(Operation.CREATE, Course(id=scope.id, state=CourseState.ACTIVE))
        yield Mutation(
            Operation.CREATE, Resource(type="material", id=f"m{number}", scope=scope, published=True)
        )
        for member in range(MEMBERS):
            subject = Subject(SubjectType.USER, f"u{member}")
            yield Mutation(Operation.CREATE, Membership(subject=subject, scope=scope, role="student"))


if __name__ == "__main__":
    main(*([tuple(map(int, sys.argv[1:]))] if sys.argv[1:] else []))
