"""Six greedy clients of each kind do not harm an honest one. `python -m tests.bench.greedy` measures it."""

from __future__ import annotations

import os

import pytest

from tests.faults.honest import calm_and_greedy, drain, show_figures
from tests.serving import serving

SECONDS = float(os.environ.get("AUTHZ_TEST_GREEDY_S", "6"))
MAX_GROWTH_BYTES = 300 << 20
"""Far below what the greedy clients send."""
UNWANTED = ("CANCELLED", "INTERNAL", "UNKNOWN", "answered")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_honest_client_is_served_among_greedy_ones(store_url: str, workers: str) -> None:
    with serving(store_url, AUTHZ_WORKERS=workers, AUTHZ_LOG_LEVEL="info") as (process, address):
        drain(process)
        calm, busy, outcomes = calm_and_greedy(address, process.pid, SECONDS)
        assert process.poll() is None
    show_figures(calm, busy, outcomes)
    assert calm.faults + busy.faults == []
    assert busy.checks_ms
    assert busy.revocations_ms
    assert [name for name in outcomes if name.endswith(UNWANTED)] == []
    assert busy.peak_bytes - calm.peak_bytes < MAX_GROWTH_BYTES
