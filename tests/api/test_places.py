"""Who gets a place: no client has more than half, and a client without one gets one of the last quarter."""

from __future__ import annotations

import pytest

from authz.api.places import Places
from authz.domain.errors import OverloadedError


def taken(places: Places, *holders: str) -> int:
    """How many places these holders get before the first is refused."""
    count = 0
    try:
        while True:
            places.take(holders)
            count += 1
    except OverloadedError as error:
        assert error.retry_after_s > 0
        assert "try again" in error.message
        return count


def test_a_client_has_at_most_half() -> None:
    places = Places(16, "calls")
    assert taken(places, "a") == 8


def test_the_last_quarter_is_for_clients_that_have_none() -> None:
    places = Places(16, "calls")
    assert [taken(places, name) for name in "abcdefg"] == [8, 4, 1, 1, 1, 1, 0]


def test_without_a_name_only_the_whole_is_bounded() -> None:
    assert taken(Places(16, "calls")) == 16


def test_a_caller_counts_over_all_its_connections() -> None:
    places = Places(16, "calls")
    assert taken(places, "one", "service:a") == 8
    assert taken(places, "two", "service:a") == 0
    assert taken(places, "two", "service:b") == 4


def test_a_place_that_was_given_back_is_free_for_its_holder_and_for_others() -> None:
    places = Places(4, "calls")
    assert taken(places, "a") == 2
    for _ in range(2):
        places.release_and_free(["a"])
    assert taken(places, "b") == 2
    assert taken(places, "a") == 1


@pytest.mark.parametrize("most", [1, 2, 3])
def test_few_places_are_enough_for_one_client(most: int) -> None:
    assert taken(Places(most, "calls"), "a") >= 1
