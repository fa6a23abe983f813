"""Print what a check costs in process, from ids to decision, and what the replica takes and how it builds."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from authz.domain.decisions import CREATE_ACTION, STRUCTURAL_TYPES
from authz.engine.check import Checker
from authz.policy.compile import CompiledPolicy
from authz.policy.load import MODEL_FILE, POLICY_FILE, load_policy, policy_directory
from authz.replica.environment import acquire_environment, release_environment
from authz.replica.generations import build_replica, warm_up
from authz.replica.shared_state import SharedState, uptime_ns
from authz.replica.view import ReplicaView
from authz.runtime.compose import system_clock
from tests.bench.campus import MEMBERS_A_COURSE, Campus, ask
from tests.bench.measure import cost_us, show

MAX_BYTES = 1 << 36
QUESTIONS = 60_000
ROUNDS = 5
LARGE_COURSE = 10_000
STARTS = 200
OVERRIDING_COURSES, OVERRIDES_A_COURSE = 360, 100


def built(campus: Campus, folder: Path) -> ReplicaView:
    """A view of a replica of the campus."""
    build_replica(folder / "1", campus, max_bytes=MAX_BYTES)
    state = SharedState(folder)
    state.begin("bench")
    state.publish(1, campus.state.revision)
    state.confirm(uptime_ns())
    state.close()
    return ReplicaView(folder, source="bench", max_bytes=MAX_BYTES, max_staleness_s=1e9)


def bytes_a_membership(campus: Campus, folder: Path) -> float:
    """Of both directions, pages whole."""
    environment = acquire_environment(folder / "1", max_bytes=MAX_BYTES)
    with environment.lmdb.begin() as transaction:
        stats = [transaction.stat(each) for each in (environment.members, environment.members_in)]
    release_environment(environment)
    pages = sum(each["leaf_pages"] + each["branch_pages"] + each["overflow_pages"] for each in stats)
    return float(pages * stats[0]["psize"] / campus.size)


def warm_up_s(generation: Path) -> float:
    """Seconds that a follower takes to read the file that it finds after a reboot."""
    file = generation / "data.mdb"
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    begun = time.monotonic()
    warm_up(file, stopped=lambda: False)
    return time.monotonic() - begun


def check_us(view: ReplicaView, policy: CompiledPolicy, questions: list[tuple[str, str, str]]) -> float:
    """Microseconds of a check, from ids to decision, at random over the campus, with its pages in memory."""
    checker = Checker(policy)

    def check(ids: tuple[str, str, str]) -> None:
        checker.check(view.snapshot(), ask(*ids), system_clock())

    for ids in questions:
        check(ids)  # what is asked about is in memory from here on
    return cost_us(check, questions)[0]


def first_checks_us(policy: CompiledPolicy) -> tuple[float, float]:
    """Microseconds of the first check in a course after a start, the policy's plans made: medians for a
    course with 10,000 members and for courses with 100, which take turns."""
    checker = Checker(policy)
    campuses = [Campus(LARGE_COURSE, members_a_course=n) for n in (LARGE_COURSE, MEMBERS_A_COURSE)]
    took_us: list[list[float]] = [[], []]
    with ExitStack() as stack:
        names = [stack.enter_context(tempfile.TemporaryDirectory(prefix="authz-bench-")) for _ in campuses]
        for campus, name in zip(campuses, names, strict=True):
            built(campus, Path(name)).close()
        for questions in zip(*(campus.questions(STARTS) for campus in campuses), strict=True):
            for ids, name, took in zip(questions, names, took_us, strict=True):
                view = ReplicaView(Path(name), source="bench", max_bytes=MAX_BYTES, max_staleness_s=1e9)
                snapshot = view.snapshot()
                begun = time.perf_counter()
                checker.check(snapshot, ask(*ids), system_clock())
                took.append((time.perf_counter() - begun) * 1e6)
                view.close()
    return statistics.median(took_us[0]), statistics.median(took_us[1])


def overridden(folder: Path) -> CompiledPolicy:
    """The default policy with 36,000 rows more: 100 for each of 360 courses of the campus."""
    shutil.copy(policy_directory() / MODEL_FILE, folder)
    rules = [(policy_directory() / POLICY_FILE).read_text()]
    policy = load_policy(policy_directory())
    pairs = [
        (declared.name, action)
        for declared in policy.vocabulary.types.values()
        for action in declared.actions
        if declared.name not in STRUCTURAL_TYPES and action != CREATE_ACTION
    ]
    conditions = ("own & locked", "own & shared_view", "locked & published")
    rows = [
        f"p, {role}, course:c{course:07d}, {type_name}, {action}, {condition}, allow\n"
        for course in range(OVERRIDING_COURSES)
        for role, type_name, action, condition in [
            (role, *pair, condition)
            for condition in conditions
            for role in ("auditor", "student")
            for pair in pairs
        ][:OVERRIDES_A_COURSE]
    ]
    (folder / POLICY_FILE).write_text("".join([*rules, *rows]))
    return load_policy(folder)


def check_costs_us(cases: Sequence[tuple[int, ReplicaView, CompiledPolicy]]) -> list[float]:
    """Of each case (its campus by size), the median over rounds in which all take turns, so that a slow
    minute of the machine is everybody's."""
    rounds = [
        [check_us(view, policy, Campus(size).questions(QUESTIONS)) for size, view, policy in cases]
        for _ in range(ROUNDS)
    ]
    return [statistics.median(took_us) for took_us in zip(*rounds, strict=True)]


def lay_out(size: int, folder: Path) -> ReplicaView:
    """A view of a replica of `size` memberships and resources, and rows of what it takes."""
    campus, begun = Campus(size), time.monotonic()
    view = built(campus, folder)
    took_s = time.monotonic() - begun
    show(f"{size:>10,} memberships and resources: laid out from memory", f"{took_s:.1f} s")
    show(f"{'':>10} warm-up from the disk", f"{warm_up_s(folder / '1'):.2f} s")
    show(f"{'':>10} a membership in the replica", f"{bytes_a_membership(campus, folder):.0f} bytes")
    return view


def main(sizes: tuple[int, ...]) -> None:
    """For each size: building, bytes, a check; then the rules; then a large course's first check."""
    policy = load_policy(policy_directory())
    with ExitStack() as stack:
        views: dict[int, ReplicaView] = {}
        for size in sizes:
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="authz-bench-"))
            views[size] = lay_out(size, Path(name))
            stack.callback(views[size].close)
        many = overridden(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        cases = [(size, view, policy) for size, view in views.items()]
        overridden_us, *costs_us = check_costs_us([(sizes[0], views[sizes[0]], many), *cases])
    for size, each_us in zip(sizes, costs_us, strict=True):
        show(f"{size:>10,} memberships and resources: a check in process", f"{each_us:.2f} us")
    show("36,000 policy rows against the default policy", f"{overridden_us / costs_us[0]:.2f}x", "goal 1.2x")
    large, small = first_checks_us(policy)
    show(f"first check after a start in a course with {LARGE_COURSE:,} members", f"{large:.0f} us")
    show("the same in a course with 100", f"{small:.0f} us", "no slower")
    show(
        f"a check at {sizes[-1]:,} against {sizes[0]:,}",
        f"{costs_us[-1] / costs_us[0]:.2f}x",
        "1.8x is fine at 10,000,000",
    )


if __name__ == "__main__":
    main(tuple(int(size) for size in sys.argv[1:]) or (10_000, 1_000_000))
