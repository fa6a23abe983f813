"""Print what 36,000 courses with a policy of their own cost: a check, and a new policy of the platform.

The same rows can stand in the platform's file, and did before courses had policies. So what a check costs in
a course with a policy of its own is held against what it costs where the platform's file has the same rows.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import cycle
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from authz.client import check_request
from authz.domain.entities import KINDS, Kind, PolicyActivation, PolicyVersion
from authz.domain.files import FORMAT, files_digest, files_text
from authz.domain.ids import course_scope
from authz.engine.check import Checker
from authz.policy.compile import CompiledPolicy
from authz.policy.course import COURSE_FILE, CourseReview, course_files
from authz.policy.invariants import read_invariants
from authz.policy.load import POLICY_FILE, load_policy, policy_directory, read_folder
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
GOAL = "goal 1.05x"

Asked: TypeAlias = Sequence[tuple[str, str, str]]
"""Subjects, actions and resources."""


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
                activate(connection, each.scope.id, each.files)
        return url


class CampusWithRows(Campus):
    """The same courses, none with a policy of its own: the platform's has the rows of all."""

    def __init__(self, policy: Path) -> None:
        """`policy` is the folder of the platform's policy."""
        super().__init__(2 * COURSES * MEMBERS_A_COURSE, members_a_course=MEMBERS_A_COURSE)
        self._files = files_text(read_folder(policy))

    def fill_sqlite(self, path: Path) -> str:
        """See `Campus.fill_sqlite`."""
        url = super().fill_sqlite(path)
        with sqlite3.connect(path) as connection:
            activate(connection, "", self._files)
        return url


def activate(connection: sqlite3.Connection, course_id: str, files: str) -> None:
    """Store version 1 of the policy of a course, or without one of the platform's, as the active one."""
    scope, digest = ("course" if course_id else "platform", course_id), files_digest(files)
    connection.execute(
        "INSERT INTO policy_versions (scope_kind, scope_id, number, digest, files, format, author, reason,"
        " created_at, weakens_invariants, revision) VALUES (?, ?, 1, ?, ?, ?, '', '', 1, 0, 1)",
        (*scope, digest, files, FORMAT),
    )
    connection.execute("INSERT INTO policy_activations VALUES (?, ?, 1, ?, 1)", (*scope, digest))


def folder_with_rows(folder: Path) -> Path:
    """The shipped policy with the rows of every course that has a policy of its own."""
    made = shutil.copytree(policy_directory(), folder / "policy")
    with (made / POLICY_FILE).open("a") as file:
        file.writelines(rows_of(f"c{number:07d}") for number in range(0, 2 * COURSES, 2))
    return made


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


def bench_checks(folder: Path) -> None:
    """Checks in courses with rules of their own and in courses without, which take turns."""
    some = CampusWithPolicies()
    shipped, rows = load_policy(policy_directory()), load_policy(folder_with_rows(folder))
    plain = Campus(some.size, members_a_course=MEMBERS_A_COURSE)
    for name in ("plain", "some"):
        (folder / name).mkdir()
    with closing(built(plain, folder / "plain")) as none, closing(built(some, folder / "some")) as own:
        for count in (FEW, ASKED_ABOUT, COURSES):
            inside, beside = (_asked(some, range(first, 2 * count, 2)) for first in (0, 1))
            where = f"in {'any' if count == COURSES else 'one'} of {count:,} courses"
            held = _ratio((rows, none, inside), (shipped, own, inside))
            show(f"{where} with a policy, against rows in the file", f"{held:.3f}x", GOAL)
            held = _ratio((shipped, none, inside), (shipped, own, inside))
            show(f"{where} with a policy, against no rules of courses", f"{held:.3f}x")
            held = _ratio((shipped, none, beside), (shipped, own, beside))
            show(f"{where} without one, beside 36,000 with one", f"{held:.3f}x", GOAL)
        anywhere = _asked(some, range(0, some.courses, 2))[:SPREAD_QUESTIONS]
        check_us(own, shipped, list(anywhere))  # what is asked about is in memory from here on
        first_us = statistics.median(
            cost_us(_checking(shipped, own), anywhere, clock=time.thread_time)[1] for _ in range(ROUNDS)
        )
    show("in any of 36,000 with one: nearly every check compiles", f"{first_us:.0f} us")


def _asked(campus: Campus, courses: Sequence[int]) -> Asked:
    return questions(campus, courses, max(QUESTIONS, 5 * len(courses)))


def _ratio(*cases: tuple[CompiledPolicy, ReplicaView, Asked]) -> float:
    """What the checks of the second case cost against those of the first."""
    checks = [(_checking(policy, view), asked) for policy, view, asked in cases]
    for check, asked in checks:
        for ids in asked:
            check(ids)  # what is asked about is in memory from here on
    return cpu_ratios(checks)[1]


def bench_calls(folder: Path) -> None:
    """The same over gRPC: three servers, with no rules of courses, with rows, and with policies."""
    campuses = (
        Campus(2 * COURSES * MEMBERS_A_COURSE, members_a_course=MEMBERS_A_COURSE),
        CampusWithRows(folder_with_rows(folder)),
        CampusWithPolicies(),
    )
    cases = []
    with ExitStack() as stack:
        for number, campus in enumerate(campuses):
            url = campus.fill_sqlite(folder / f"bench{number}.db")
            pid, address, _ = stack.enter_context(running([str(AUTHZ), "serve"], AUTHZ_DATABASE_URL=url))
            for count in (ASKED_ABOUT, COURSES):
                for first in (0, 1):
                    asked = [check_request(*ids) for ids in _asked(campus, range(first, 2 * count, 2))]
                    _ask_once(address, asked)
                    messages = cycle([each.SerializeToString() for each in asked])
                    cases.append(Load(address, pid, "Check", messages.__next__))
        rounds = drive_in_turns(cases)

    def ratio(place: int, base: int) -> str:
        """By the processor of the server."""
        return ratio_text(each[place][1] / each[base][1] for each in rounds)

    for place, where in (
        (0, f"gRPC: in one of {ASKED_ABOUT:,} courses"),
        (2, "gRPC: in any of 36,000 courses"),
    ):
        own, rows, none = place + 8, place + 4, place
        show(f"{where} with a policy, against rows in the file", ratio(own, rows), GOAL)
        show(f"{where} with a policy, against no rules of courses", ratio(own, none))
        show(f"{where} without one, beside 36,000 with one", ratio(own + 1, none + 1), GOAL)


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
    for bench in (bench_checks, bench_calls):
        with tempfile.TemporaryDirectory(prefix="authz-bench-") as folder:
            bench(Path(folder))
    bench_review()


if __name__ == "__main__":
    main()
