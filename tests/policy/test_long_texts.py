"""What a policy with very long texts leaves in memory: nothing."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

import pytest

from authz.domain.errors import PolicyError
from tests.policies import policy_with

MANY = 20_000
LONG: dict[str, Callable[[int], str]] = {
    "condition": lambda n: f"p, student, *, notebook, read, {'own & ' * MANY}x{n}, deny",
    "effect": lambda n: f"p, student, *, notebook, read, own, deny{' ' * 6 * MANY}{n}",
    "role": lambda n: f"p, {'r' * 6 * MANY}{n}, *, notebook, read, own, deny",
    "line": lambda n: f"p, student{' ' * 6 * MANY}, *, notebook, read, x{n}, deny",
    "list of actions": lambda n: f"type, quiz, {'read|' * MANY}x{n}",
}


@pytest.mark.parametrize("row", LONG.values(), ids=LONG)
def test_no_cache_keeps_a_long_text(row: Callable[[int], str]) -> None:
    def refused(number: int) -> None:
        with pytest.raises(PolicyError):
            policy_with(row(number))

    refused(0)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(1, 11):
            refused(number)
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown - before < 6 * MANY  # less than one of the ten texts
