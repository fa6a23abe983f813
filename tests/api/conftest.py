"""What several tests of the API share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from authz.client import Client


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    """A client of the server at the `address` of a test file."""
    with Client(address) as found:
        yield found
