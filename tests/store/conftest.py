"""A store on each database, with a small vocabulary and a clock that the test sets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from authz.store import Store
from tests.store.directory import Clock, open_with


@pytest.fixture
def clock() -> Clock:
    """Stands still until a test moves it."""
    return Clock()


@pytest.fixture
def store(store_url: str, clock: Clock) -> Iterator[Store]:
    """An empty, migrated store."""
    opened = open_with(store_url, clock)
    yield opened
    opened.close()
