"""Print what 36,000 courses with a policy of their own cost: a check, and a new policy of the platform."""

from __future__ import annotations

import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Any

import grpc

from authz.client import check_request
from authz.domain.entities import KINDS, Kind, PolicyActivation, PolicyVersion
from authz.domain.files import FORMAT, files_digest
from authz.domain.ids import course_scope
from authz.engine.check import Checker
from authz.policy.compile import CompiledPolicy
from authz.policy.course import COURSE_FILE, CourseReview, course_files
from authz.policy.invariants import read_invariants
from authz.policy.load import load_policy, policy_directory
from authz.replica.view import ReplicaView
from authz.runtime.compose import system_clock
from authz.v1.authorization_pb2 import BatchCheckRequest, CheckRequest
from authz.v1.authorization_pb2_grpc import AuthorizationServiceStub
from tests.bench.campus import Campus, ask
from tests.bench.measure import cost_us, cpu_ratios, ratio_text, show
from tests.bench.replica import ROUNDS, built, check_us
from tests.bench.serving import Load, drive_in_turns, running
from tests.forkserver import AUTHZ
from tests.policies import SHIPPED

COURSES, MEMBERS_A_COURSE = 36_000, 2
ASKED_ABOUT, FEW = 1_000, 20
QUESTIONS, SPREAD_QUESTIONS, BATCH = 20_000, 2_000, 1_000


class CampusWithPolicies(Campus):
    """Twice as many courses, of which every other one has a policy of its own."""

    def __init__(self) -> None:
        super().__init__(2 * COURSES * MEMBERS_A_COURSE, members_a_course=MEMBERS_A_COURSE)

    def entities(self, kind: Kind, by: str = "") -> Iterator[Any]:
        """See `Dump.entities`."""
        if kind.entity not in (PolicyVersion, PolicyActivation):
            return super().entities(kind, by)
        return (policy_of(f"c{number:07d}", kind) for number in range(0, self.courses, 2))

    def fill_sqlite(self, path: Path) -> str:
        """See `Campus.fill_sqlite`."""
        url = super().fill_sqlite(path)
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            for each in self.entities(KINDS["policy_version"]):
                connection.execute(
                    "INSERT INTO policy_versions VALUES ('course', ?, 1, ?, ?, ?, '', '', 1, 1)",
                    (each.scope.id, each.digest, each.files, each.format),
                )
                connection.execute(
                    "INSERT INTO policy_activations VALUES ('course', ?, 1, ?, 1)",
                    (each.scope.id, each.digest),
                )
        return url


def rows_of(course_id: str, number: int = 0) -> str:
    """Three rows for a course; the last is another one for each number below 32."""
    scope = course_scope(course_id)
    facts = ("locked", "within_edit_window", "shared_view", "course_visible", "ai_enabled")
    chosen = " & ".join(fact for place, fact in enumerate(facts) if number >> place & 1)
    return (
        f"p, student, {scope}, notebook, read, !own & !shared_view, deny\n"
        f"p, teaching_assistant, {scope}, material, create, , allow\n"
        f"p, auditor, {scope}, message, read, {' & '.join(filter(None, ('own', chosen)))}, allow\n"
    )


def policy_of(course_id: str, kind: Kind) -> PolicyVersion | PolicyActivation:
    """The policy of a course, or its activation."""
    scope, files = course_scope(course_id), course_files(rows_of(course_id))
    digest = files_digest(files)
    if kind.entity is PolicyActivation:
        return PolicyActivation(scope=scope, number=1, digest=digest)
    return PolicyVersion(scope=scope, number=1, digest=digest, files=files, format=FORMAT)


def questions(campus: Campus, courses: Sequence[int], count: int) -> list[tuple[str, str, str]]:
    """At random about these courses: one member asks about the notebook of any."""
    chance, found = random.Random(1), []
    for _ in range(count):
        course = chance.choice(courses)
        user, owner = (course + campus.courses * chance.randrange(MEMBERS_A_COURSE) for _ in range(2))
        found.append((f"user:u{user:08d}", chance.choice(["read", "update"]), f"notebook:n{owner:08d}"))
    return found


def _checking(policy: CompiledPolicy, view: ReplicaView) -> Callable[[tuple[str, str, str]], object]:
    """A check from ids to decision, by a process that has compiled the policy of no course."""
    checker = Checker(policy)

    def check(ids: tuple[str, str, str]) -> object:
        return checker.check(view.snapshot(), ask(*ids), system_clock())

    return check


def _ratios(
    policy: CompiledPolicy, none: ReplicaView, some: ReplicaView, campus: Campus, count: int
) -> list[float]:
    """What checks in `count` courses cost, without a policy of their own and with one, against a campus that
    has none."""
    inside, beside = range(0, 2 * count, 2), range(1, 2 * count, 2)
    plain = Campus(campus.size, members_a_course=MEMBERS_A_COURSE)
    cases = []
    for view, where, courses in ((none, plain, inside), (some, campus, beside), (some, campus, inside)):
        check, asked = _checking(policy, view), questions(where, courses, max(QUESTIONS, 5 * count))
        for ids in asked:
            check(ids)  # what is asked about is in memory from here on
        cases.append((check, asked))
    return cpu_ratios(cases)[1:]


def bench_checks() -> None:
    """Checks in courses with a policy and without, which take turns."""
    policy, campus = load_policy(policy_directory()), CampusWithPolicies()
    plain = Campus(campus.size, members_a_course=MEMBERS_A_COURSE)
    with ExitStack() as stack:
        names = [stack.enter_context(tempfile.TemporaryDirectory(prefix="authz-bench-")) for _ in range(2)]
        none, some = (built(each, Path(name)) for each, name in zip((plain, campus), names, strict=True))
        _, few_ratio = _ratios(policy, none, some, campus, FEW)
        beside_ratio, own_ratio = _ratios(policy, none, some, campus, ASKED_ABOUT)
        anywhere = questions(campus, range(0, campus.courses, 2), SPREAD_QUESTIONS)
        check_us(some, policy, anywhere)  # what is asked about is in memory from here on
        first_us = statistics.median(
            cost_us(_checking(policy, some), anywhere, clock=time.thread_time)[1] for _ in range(ROUNDS)
        )
        every_ratio = _ratios(policy, none, some, campus, COURSES)[1]
        none.close()
        some.close()
    goal = "goal 1.05x"
    show("a check in a course without a policy, where 36,000 others have one", f"{beside_ratio:.3f}x", goal)
    show(f"in one of {FEW} courses with one, of 36,000", f"{few_ratio:.3f}x")
    show(f"in one of {ASKED_ABOUT:,}: less of what it reads is in the processor's cache", f"{own_ratio:.3f}x")
    show("in any of 36,000 with one, at random: nearly every check compiles", f"{first_us:.0f} us")
    show("the same, once a check has asked about each of them", f"{every_ratio:.3f}x")


def bench_calls(folder: Path) -> None:
    """The same over gRPC: two servers, of which one has 36,000 courses with a policy of their own."""
    some = CampusWithPolicies()
    plain = Campus(some.size, members_a_course=MEMBERS_A_COURSE)
    inside, every = range(0, 2 * ASKED_ABOUT, 2), range(0, some.courses, 2)
    with ExitStack() as stack:
        servers = []
        for number, campus in enumerate((plain, some)):
            url = campus.fill_sqlite(folder / f"bench{number}.db")
            pid, address, _ = stack.enter_context(running([str(AUTHZ), "serve"], AUTHZ_DATABASE_URL=url))
            servers.append((address, pid))
        none, own = servers
        cases = []
        for server, campus, courses in (
            (none, plain, inside),
            (own, some, range(1, 2 * ASKED_ABOUT, 2)),
            (own, some, inside),
            (none, plain, every),
            (own, some, range(1, some.courses, 2)),
            (own, some, every),
        ):
            asked = [
                check_request(*ids) for ids in questions(campus, courses, max(QUESTIONS, 5 * len(courses)))
            ]
            _ask_once(server[0], asked)
            cases.append(Load(*server, "Check", cycle([each.SerializeToString() for each in asked]).__next__))
        rounds = drive_in_turns(cases)

    def ratio(place: int, base: int) -> str:
        """By the processor of the server."""
        return ratio_text(each[place][1] / each[base][1] for each in rounds)

    show("gRPC: Check in a course without one, where 36,000 have one", ratio(1, 0), "goal 1.05x")
    show(f"gRPC: Check in one of {ASKED_ABOUT:,} courses with one", ratio(2, 0), "goal 1.05x")
    show("the same, against those without one on the same server", ratio(2, 1))
    show("gRPC: Check in any of 36,000 with one, at random", ratio(5, 3), "goal 1.05x")
    show("the same, against those without one on the same server", ratio(5, 4))


def _ask_once(address: str, asked: Sequence[CheckRequest]) -> None:
    """So what is asked about is in the server's memory."""
    with grpc.insecure_channel(address) as channel:
        batch_check = AuthorizationServiceStub(channel).BatchCheck
        for start in range(0, len(asked), BATCH):
            batch_check(BatchCheckRequest(items=asked[start : start + BATCH]))


def bench_review() -> None:
    """What a new policy of the platform waits for."""
    policy = load_policy(policy_directory())
    invariants = read_invariants(SHIPPED, policy.vocabulary)
    for label, variety in (("rows that differ", COURSES), ("equal rows", 1)):
        review, begun = CourseReview(policy, invariants), time.perf_counter()
        for number in range(COURSES):
            text = rows_of(f"c{number}", number % 32) + (f"# {number}\n" if variety > 1 else "")
            review.add(f"c{number}", {COURSE_FILE: text})
        review.require_passed()
        show(f"reviewing 36,000 policies of courses with {label}", f"{time.perf_counter() - begun:.1f} s")


def main() -> None:
    """All of it."""
    bench_checks()
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as folder:
        bench_calls(Path(folder))
    bench_review()


if __name__ == "__main__":
    main()
