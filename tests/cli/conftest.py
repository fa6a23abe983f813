"""A server for the commands of one test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving import served


@pytest.fixture
def address(sqlite_url: str) -> Iterator[str]:
    """The address of a server over a new database. With `--database`, each command would start one."""
    with served(sqlite_url) as address:
        yield address


@pytest.fixture
def here(address: str) -> tuple[str, str]:
    """The option that names it."""
    return ("--address", address)
