"""Statements that are sent to PostgreSQL together, so that a write does not wait for the answer to each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from sqlalchemy import Connection, Dialect, Executable


class Sender(Protocol):
    """What statements are sent over whose results nobody reads, such as a connection."""

    @property
    def dialect(self) -> Dialect: ...

    def execute(self, statement: Executable, parameters: Any = None, /) -> object:
        """Send a statement, once for each set of parameters."""


@contextmanager
def sent_together(connection: Connection) -> Iterator[Sender]:
    """On PostgreSQL, wait only at the end of the block for the answers to its statements, and raise there
    what is wrong with one.

    Nothing in the block may read: a SELECT would seem to find no rows. So what it calls takes a `Sender`.
    Source: https://www.psycopg.org/psycopg3/docs/advanced/pipeline.html
    """
    if connection.dialect.name != "postgresql":
        yield connection
        return
    driver: Any = connection.connection.driver_connection
    with driver.pipeline():
        yield connection
