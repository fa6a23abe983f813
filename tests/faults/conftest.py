"""What the tests of faults share."""

from __future__ import annotations

from tests.faults.postgresql import clusters

__all__ = ["clusters"]
