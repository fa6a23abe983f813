"""Which retention periods are allowed."""

from __future__ import annotations

import pytest

from authz.domain.entities import RetainedData, RetentionRule
from authz.domain.errors import InvalidArgumentError
from authz.domain.instants import DAY_US
from authz.domain.retention import LIMITS, MAX_DAYS, kept_since, require_allowed

NOW = 2_000_000_000_000_000


@pytest.mark.parametrize("data", RetainedData)
def test_a_period_below_the_floor_is_refused_with_the_least_and_why(data: RetainedData) -> None:
    limits = LIMITS[data]
    require_allowed(data, limits.min_days)
    for days in (limits.min_days - 1, 0, -1):
        with pytest.raises(InvalidArgumentError) as refused:
            require_allowed(data, days)
        assert f"for at least {limits.min_days} days, because {limits.why}" in refused.value.message
        assert refused.value.metadata["field"] == "days"


def test_a_period_beyond_a_century_is_refused() -> None:
    require_allowed(RetainedData.CHANGES, MAX_DAYS)
    with pytest.raises(InvalidArgumentError, match="or keep changes forever"):
        require_allowed(RetainedData.CHANGES, MAX_DAYS + 1)


def test_everything_but_idempotency_keys_may_be_kept_for_ever() -> None:
    for data in set(RetainedData) - {RetainedData.IDEMPOTENCY_KEYS}:
        require_allowed(data, None)
    with pytest.raises(InvalidArgumentError, match="set a period in days"):
        require_allowed(RetainedData.IDEMPOTENCY_KEYS, None)


def test_a_stored_period_below_the_floor_of_a_later_release_counts_as_the_floor() -> None:
    assert kept_since(RetentionRule(RetainedData.CHANGES, 1), NOW) == NOW - 90 * DAY_US
    assert kept_since(RetentionRule(RetainedData.CHANGES, 91), NOW) == NOW - 91 * DAY_US
    assert kept_since(RetentionRule(RetainedData.CHANGES), NOW) is None
