"""Fixtures of the tests of rosters."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.importers.exports import Campus


@pytest.fixture
def campus(tmp_path: Path) -> Campus:
    """A directory without any record."""
    return Campus(tmp_path)
