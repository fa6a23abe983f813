"""What the tests of faults share."""

from __future__ import annotations

import pytest

from tests import forkserver
from tests.faults.postgresql import cluster_template, clusters

__all__ = ["cluster_template", "clusters"]


@pytest.fixture
def over_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve over grpc.aio, which starts in a third of the processor time, unless `TRANSPORT` says otherwise:
    for faults of the store and the replica, in which no transport takes part."""
    if not forkserver.TRANSPORT:
        monkeypatch.setattr(forkserver, "TRANSPORT", "grpc")
