"""Print what a check costs while a candidate decides beside the active policy, against without."""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from authz.client import Client, ShadowReport, check_request
from authz.domain.decisions import Question
from authz.domain.drafts import AddRow, SetCell
from authz.domain.entities import PolicyVersion
from authz.domain.ids import PLATFORM, Scope, course_scope
from authz.domain.shadow import PolicyShadow
from authz.engine.check import Checker
from authz.engine.shadow_comparison import ShadowComparison
from authz.engine.shadow_runner import ShadowRunner
from authz.policy.compile import CompiledPolicy
from authz.policy.course import COURSE_FILE, load_course_policy
from authz.policy.load import compile_files
from authz.runtime.compose import system_clock
from tests.bench.campus import Campus, ask
from tests.bench.measure import cpu_ratios, show
from tests.bench.replica import built
from tests.bench.serving import drive, running
from tests.forkserver import AUTHZ
from tests.policies import SHIPPED, with_rows

GOAL = 0.01
COURSES = tuple(f"c{number:07d}" for number in range(10))
"""As many as may have a shadow at once."""


class Trial(NamedTuple):
    """A shadow of the platform's policy, or of that of each course, at a sample rate."""

    label: str
    sample_rate: float
    courses: tuple[str | None, ...] = (None,)


TRIALS = (
    Trial("a shadow of 0% of the checks", 1e-12),
    Trial("a shadow of 1% of the checks", GOAL),
    Trial("a shadow of 100% of the checks", 1.0),
    Trial("a shadow of 1% of the checks in one course", GOAL, COURSES[:1]),
    Trial(f"a shadow of 1% of the checks in each of {len(COURSES)} courses", GOAL, COURSES),
)
"""One that compares nothing; that of the goal; all that the budget lets; those of courses."""
WITHOUT = Trial("no shadow", 0.0, ())
ROUNDS = 8
QUESTIONS = 60_000
_NOTICED_S = 2.0
"""After which the server has found what was started or stopped."""


def bench(folder: Path, size: int) -> None:
    """One server, whose shadows are started for each trial in turn, and stopped, in every round."""
    campus = Campus(size)
    checks = [check_request(*ids).SerializeToString() for ids in campus.questions(10_000)]
    check = itertools.cycle(checks).__next__
    url = campus.fill_sqlite(folder / "bench.db")
    with (
        running([str(AUTHZ), "serve"], AUTHZ_DATABASE_URL=url) as (pid, address, _),
        Client(address) as client,
    ):
        drafts, shadow = client.policies.drafts, client.policies.shadow
        drafts.edit(drafts.create("bench"), [SetCell("student", "notebook", "update", ("shared_edit",))])
        for course in COURSES:
            drafts.edit(drafts.create("bench", course_id=course), [AddRow(row_of(course))])
        rounds, reports = [], {}
        for _ in range(ROUNDS):
            took_us = {}
            # In another order each time: what comes first after a pause costs more.
            for trial in random.sample([WITHOUT, *TRIALS], 1 + len(TRIALS)):
                for course_id in trial.courses:
                    shadow.start("bench", sample_rate=trial.sample_rate, course_id=course_id)
                time.sleep(_NOTICED_S)
                for _warm in range(2):
                    took_us[trial] = asyncio.run(drive(address, pid, "Check", check))[1]
                for course_id in trial.courses:
                    shadow.stop(course_id=course_id)
                if trial.courses:
                    time.sleep(_NOTICED_S)
                    reports[trial] = shadow.read(course_id=trial.courses[0])
            rounds.append(took_us)
    _show(rounds, reports)


def row_of(course_id: str) -> str:
    """A rule that a course may have of its own."""
    return f"p, student, course:{course_id}, notebook, update, shared_edit, deny"


def bench_in_process(folder: Path, size: int) -> None:
    """A check as a server makes it: without a shadow, with each at the goal's sample rate, and again without,
    which shows how exact the ratios are."""
    campus = Campus(size)
    platform = compile_files(SHIPPED)
    number = PolicyVersion(scope=PLATFORM, number=1, digest="", files="", format=1)
    active = Checker(platform, version=number)
    view = built(campus, folder)

    def checking(*runs: ShadowComparison) -> Callable[[Question], object]:
        shadow = ShadowRunner(*[None] * 4)  # type: ignore[arg-type]  # what starts and saves one, which nobody asks
        shadow._comparisons = runs
        return lambda question: shadow.check(active, view.snapshot(), question, system_clock())

    whole = _run(PLATFORM, compile_files(with_rows("p, student, *, notebook, update, shared_edit, deny")))
    courses = [
        _run(course_scope(each), load_course_policy(platform, each, {COURSE_FILE: row_of(each)}))
        for each in COURSES
    ]
    questions = [ask(*ids) for ids in campus.questions(QUESTIONS)]
    calls = [checking(), checking(whole), checking(*courses[:1]), checking(*courses), checking()]
    for question in questions:
        calls[0](question)  # what is asked about is in memory from here on
    _, *shadowed, again = cpu_ratios([(call, questions) for call in calls])
    view.close()
    for trial, ratio in zip((each for each in TRIALS if each.sample_rate == GOAL), shadowed, strict=True):
        show(f"in process with {trial.label}", f"{ratio:.3f}x", _goal_of(trial))
    show("in process without a shadow, against itself", f"{again:.3f}x")


def _goal_of(trial: Trial) -> str:
    return "goal 1.05x" if trial.sample_rate * len(trial.courses) <= GOAL else ""


def _run(scope: Scope, candidate: CompiledPolicy) -> ShadowComparison:
    """The shadow of a policy at the sample rate of the goal."""
    shadow = PolicyShadow(
        scope=scope, against_number=1, sample_rate=GOAL, budget_us=1_000_000, author="",
        started_at=system_clock(), ends_at=1 << 62,
    )  # fmt: skip
    return ShadowComparison(shadow, Checker(candidate))


def _show(rounds: list[dict[Trial, float]], reports: dict[Trial, ShadowReport | None]) -> None:
    """The median over the rounds of each cost against that without a shadow in the same round."""
    for trial in TRIALS:
        ratio = statistics.median(took_us[trial] / took_us[WITHOUT] for took_us in rounds)
        show(f"Check with {trial.label}", f"{ratio:.3f}x", _goal_of(trial))
        report = reports[trial]
        if report is not None and report.tally.compared:
            tally = report.tally
            each_us = tally.elapsed_us / tally.compared
            show(
                "  one comparison; compared, and over the budget, in the last round",
                f"{each_us:.0f} us; {tally.compared:,}, {tally.skipped:,}",
            )


def main(size: int = 10_000) -> None:
    """Over a SQLite database of a campus."""
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as folder:
        bench_in_process(Path(folder) / "replica", size)
        bench(Path(folder), size)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 10_000)
