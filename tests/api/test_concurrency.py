"""Concurrency limits: no client has more than half, and the last quarter is for clients that have none."""

from __future__ import annotations

import pytest

from authz.api.concurrency import ConcurrencyLimit
from authz.domain.errors import OverloadedError


def admitted(limit: ConcurrencyLimit, *clients: str) -> int:
    """How many calls of these clients are admitted before the first is refused."""
    count = 0
    try:
        while True:
            limit.acquire(clients)
            count += 1
    except OverloadedError as error:
        assert error.retry_after_s > 0
        assert "try again" in error.message
        return count


def test_a_client_has_at_most_half() -> None:
    limit = ConcurrencyLimit(16, "calls")
    assert admitted(limit, "a") == 8


def test_the_last_quarter_is_for_clients_that_have_none() -> None:
    limit = ConcurrencyLimit(16, "calls")
    assert [admitted(limit, name) for name in "abcdefg"] == [8, 4, 1, 1, 1, 1, 0]


def test_without_a_name_only_the_whole_is_bounded() -> None:
    assert admitted(ConcurrencyLimit(16, "calls")) == 16


def test_a_caller_counts_over_all_its_connections() -> None:
    limit = ConcurrencyLimit(16, "calls")
    assert admitted(limit, "one", "service:a") == 8
    assert admitted(limit, "two", "service:a") == 0
    assert admitted(limit, "two", "service:b") == 4


def test_a_call_that_was_released_counts_neither_for_its_client_nor_for_others() -> None:
    limit = ConcurrencyLimit(4, "calls")
    assert admitted(limit, "a") == 2
    for _ in range(2):
        limit.release(["a"])
    assert admitted(limit, "b") == 2
    assert admitted(limit, "a") == 1


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_low_limit_is_enough_for_one_client(limit: int) -> None:
    assert admitted(ConcurrencyLimit(limit, "calls"), "a") >= 1
