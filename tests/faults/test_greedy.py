"""Six greedy clients of each kind do not harm an honest one. `python -m tests.bench.greedy` measures it."""

from __future__ import annotations

import pytest

from tests.faults.honest import calm_and_greedy, show_figures
from tests.properties import LONG
from tests.serving import drain, serving

SECONDS = 20 if LONG else 1.5
MAX_GROWTH_BYTES = 300 << 20
"""Far below what the greedy clients send."""
UNWANTED = ("CANCELLED", "INTERNAL", "UNKNOWN", "answered")


ROUNDS = [("sqlite_url", "1"), ("postgresql_url", "2")]
MORE_ROUNDS = [("sqlite_url", "2"), ("postgresql_url", "1")]


@pytest.mark.parametrize(("database", "workers"), ROUNDS + MORE_ROUNDS if LONG else ROUNDS)
def test_an_honest_client_is_served_among_greedy_ones(
    request: pytest.FixtureRequest, database: str, workers: str
) -> None:
    url = request.getfixturevalue(database)
    with serving(url, AUTHZ_WORKERS=workers, AUTHZ_LOG_LEVEL="info") as (process, address):
        drain(process)
        calm, busy, outcomes = calm_and_greedy(address, process.pid, SECONDS)
        assert process.poll() is None
    show_figures(calm, busy, outcomes)
    assert calm.faults + busy.faults == []
    assert busy.checks_ms
    assert busy.revocations_ms
    assert [name for name in outcomes if name.endswith(UNWANTED)] == []
    assert busy.peak_bytes - calm.peak_bytes < MAX_GROWTH_BYTES
