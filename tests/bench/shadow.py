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

from authz.client import Client, ShadowReport, check_request
from authz.domain.decisions import Question
from authz.domain.drafts import SetCell
from authz.domain.entities import PolicyVersion
from authz.domain.ids import PLATFORM
from authz.domain.shadow import PolicyShadow
from authz.engine.check import Checker
from authz.engine.shadow import Shadow
from authz.engine.shadow_run import ShadowRun
from authz.policy.load import compile_files
from authz.runtime.compose import system_clock
from tests.bench.campus import Campus, ask
from tests.bench.measure import cpu_ratios, show
from tests.bench.replica import built
from tests.bench.serving import drive, running
from tests.policies import SHIPPED, with_rows
from tests.serving import AUTHZ

SHARES = (0.0, 1e-12, 0.01, 1.0)
"""Without a shadow; with one that compares nothing; with that of the goal; with all that the budget lets."""
ROUNDS = 8
QUESTIONS = 60_000
_NOTICED_S = 2.0
"""After which the server has found what was started or stopped."""


def bench(folder: Path, size: int) -> None:
    """One server, whose shadow is started with each share in turn, and stopped, in every round."""
    campus = Campus(size)
    checks = [check_request(*ids).SerializeToString() for ids in campus.questions(10_000)]
    check = itertools.cycle(checks).__next__
    url = campus.fill_sqlite(folder / "bench.db")
    with (
        running([str(AUTHZ), "serve"], AUTHZ_DATABASE_URL=url) as (pid, address, _),
        Client(address) as client,
    ):
        draft = client.policies.drafts.create("bench")
        client.policies.drafts.edit(draft, [SetCell("student", "notebook", "update", ("shared_edit",))])
        rounds, reports = [], {}
        for _ in range(ROUNDS):
            took_us = {}
            # In another order each time: what comes first after a pause costs more.
            for share in random.sample(SHARES, len(SHARES)):
                if share:
                    client.policies.shadow.start("bench", share=share)
                time.sleep(_NOTICED_S)
                for _warm in range(2):
                    took_us[share] = asyncio.run(drive(address, pid, "Check", check))[1]
                if share:
                    client.policies.shadow.stop()
                    time.sleep(_NOTICED_S)
                    reports[share] = client.policies.shadow.read()
            rounds.append(took_us)
    _show(rounds, reports)


def bench_in_process(folder: Path, size: int) -> None:
    """A check as a server makes it: without a shadow, with one of the goal's share, and again without, which
    shows how exact the ratio is."""
    campus = Campus(size)
    candidate = with_rows("p, student, *, notebook, update, shared_edit, deny")
    active, after = (
        Checker(compile_files(files), inline_types=frozenset(), version=_version(number))
        for number, files in ((1, SHIPPED), (0, candidate))
    )
    view = built(campus, folder)
    now = system_clock()
    trial = PolicyShadow(
        against_number=1, share=SHARES[2], budget_us=1_000_000, author="", started_at=now, ends_at=1 << 62
    )

    def checking(run: ShadowRun | None) -> Callable[[Question], object]:
        shadow = Shadow(*[None] * 4)  # type: ignore[arg-type]  # what starts and saves one, which nobody asks
        shadow._runs = () if run is None else (run,)
        return lambda question: shadow.check(active, view.snapshot(), question, system_clock())

    questions = [ask(*ids) for ids in campus.questions(QUESTIONS)]
    calls = [checking(None), checking(ShadowRun(trial, after)), checking(None)]
    for question in questions:
        calls[0](question)  # what is asked about is in memory from here on
    _, shadowed, again = cpu_ratios([(call, questions) for call in calls])
    view.close()
    show("a check in process with a shadow of 1% of the checks, against without", f"{shadowed:.3f}x", "1.05x")
    show("  the same without a shadow, against itself", f"{again:.3f}x")


def _version(number: int) -> PolicyVersion | None:
    return PolicyVersion(scope=PLATFORM, number=number, digest="", files="", format=1) if number else None


def _show(rounds: list[dict[float, float]], reports: dict[float, ShadowReport | None]) -> None:
    """The median over the rounds of each cost against that without a shadow in the same round."""
    for share in SHARES[1:]:
        ratio = statistics.median(took_us[share] / took_us[0.0] for took_us in rounds)
        goal = "goal 1.05x" if share < 1 else ""
        show(f"Check with a shadow of {share:.0%} of the checks, against without", f"{ratio:.3f}x", goal)
        report = reports[share]
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
