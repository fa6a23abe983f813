"""Costs that a busy machine distorts little: many short rounds, of which the median and the least count."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def cost_us(call: Callable[[T], object], inputs: Sequence[T], *, a_round: int = 500) -> tuple[float, float]:
    """Microseconds of one call: the least and the median over rounds of `a_round` inputs each."""
    rounds = []
    for start in range(0, len(inputs) - a_round + 1, a_round):
        part = inputs[start : start + a_round]
        begun = time.perf_counter()
        for each in part:
            call(each)
        rounds.append((time.perf_counter() - begun) / a_round * 1e6)
    rounds.sort()
    return rounds[0], rounds[len(rounds) // 2]


def show(label: str, value: str, goal: str = "") -> None:
    """A row of the table."""
    print(f"{label:<72} {value:>26}   {goal}", flush=True)
