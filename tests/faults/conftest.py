"""What the tests of faults share."""

from __future__ import annotations

from tests.faults.postgresql import cluster_template, clusters

__all__ = ["cluster_template", "clusters"]
