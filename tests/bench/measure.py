"""Costs that a busy machine distorts little: many short rounds, of which the median and the least count."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def cost_us(
    call: Callable[[T], object],
    inputs: Sequence[T],
    *,
    a_round: int = 500,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Microseconds of one call: the least and the median over rounds of `a_round` inputs each.

    With `time.thread_time` as the clock, processor time: what else runs on the machine does not count.
    """
    rounds = []
    for start in range(0, len(inputs) - a_round + 1, a_round):
        part = inputs[start : start + a_round]
        begun = clock()
        for each in part:
            call(each)
        rounds.append((clock() - begun) / a_round * 1e6)
    rounds.sort()
    return rounds[0], rounds[len(rounds) // 2]


def cpu_ratios(
    cases: Sequence[tuple[Callable[[T], object], Sequence[T]]], *, a_round: int = 500
) -> list[float]:
    """What each case, a call with its inputs, costs against the first, in processor time of this thread: the
    median over rounds. In a round all take turns, in another order each time."""
    rounds: list[list[float]] = []
    for start in range(0, min(len(inputs) for _, inputs in cases) - a_round + 1, a_round):
        took_s = [0.0] * len(cases)
        for place in random.sample(range(len(cases)), len(cases)):
            call, inputs = cases[place]
            part = inputs[start : start + a_round]
            begun_s = time.thread_time()
            for each in part:
                call(each)
            took_s[place] = time.thread_time() - begun_s
        rounds.append([each_s / took_s[0] for each_s in took_s])
    return [statistics.median(ratios) for ratios in zip(*rounds, strict=True)]


def ratio_text(ratios: Iterable[float]) -> str:
    """The median of ratios, and between what the middle half of them is."""
    low, median, high = statistics.quantiles(ratios, n=4)
    return f"{median:.3f}x ({low:.2f} to {high:.2f})"


def show(label: str, value: str, goal: str = "") -> None:
    """A row of the table."""
    print(f"{label:<72} {value:>26}   {goal}", flush=True)
