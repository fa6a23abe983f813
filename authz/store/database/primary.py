"""Finds the newest primary of a PostgreSQL with standbys, where an old one that came back takes writes, too.

A promotion begins a timeline, with a higher number. Of two servers that take writes, the one on the lower
timeline lacks what the other has acknowledged since.
Source: https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES

A module of its own, which is imported when a connection is made, as `timed_connection`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from typing import Any, Generic, LiteralString, NamedTuple, TypeVar

import psycopg

_SEARCH_TIMEOUT_S = 2
"""For a host that does not answer while others are searched. The least that libpq takes."""
_TIMELINE = "SELECT pg_walfile_name(pg_current_wal_insert_lsn())"
_LACKS_STANDBY = """
    SELECT current_setting('synchronous_commit') NOT IN ('off', 'local')
        AND current_setting('synchronous_standby_names') <> ''
        AND NOT EXISTS (SELECT FROM pg_stat_replication)
"""
_DIGITS = 8
"""The name of a file of the write-ahead log begins with its timeline, in hexadecimal digits."""
_Connection = TypeVar("_Connection", bound=psycopg.Connection[Any])


class Primary(NamedTuple):
    """A server that takes writes. The timeline is 0 where the server does not tell it."""

    host: str
    timeline: int
    lacks_standby: bool
    """Whether each commit waits for a standby, and none is connected."""


def find_primaries(options: Mapping[str, Any]) -> Iterator[Primary]:
    """Those of the hosts in the options of a connection that take writes now, in their order."""
    for each in _each_host(options) or [dict(options)]:
        with (
            suppress(psycopg.Error),
            closing(psycopg.connect(**each | {"connect_timeout": _SEARCH_TIMEOUT_S})) as found,
        ):
            host = f"{found.info.host}:{found.info.port}"
            yield Primary(host, _timeline(found), bool(_answer(found, _LACKS_STANDBY)))


class NewestPrimary(Generic[_Connection]):
    """Connects to no primary that is older than one that was seen before."""

    def __init__(self, connect: Callable[..., _Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._newest = 0
        self._searching = threading.Lock()
        self._searched = False

    def connect(
        self, options: Mapping[str, Any], connected: Callable[[_Connection], None] = lambda _: None
    ) -> _Connection:
        """A connection; `connected` is told of each one that waits for an answer. Before the first, looks at
        every host. Raises psycopg's `OperationalError`, also if none but an old primary takes writes."""
        self._search(options)
        made = self._connect_newest(options, connected)
        for each in _each_host(options) if made is None else ():
            with suppress(psycopg.OperationalError):
                made = made or self._connect_newest(each, connected)
        if made is None:
            raise psycopg.OperationalError(f"only an old primary takes writes, not timeline {self._newest}")
        return made

    def _search(self, options: Mapping[str, Any]) -> None:
        with self._searching:
            if not self._searched and _each_host(options):
                for found in find_primaries(options):
                    self._is_old(found.timeline)
            self._searched = True

    def _connect_newest(
        self, options: Mapping[str, Any], connected: Callable[[_Connection], None]
    ) -> _Connection | None:
        """None for an old primary."""
        made = self._connect(**options)
        connected(made)
        if self._is_old(_timeline(made)):
            made.close()
            return None
        return made

    def _is_old(self, timeline: int) -> bool:
        with self._lock:
            self._newest = max(self._newest, timeline)
            return 0 < timeline < self._newest


def _each_host(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The options for each of several hosts; none for a single host, or where libpq itself finds them."""
    hosts = str(options.get("host") or "").split(",")
    ports = str(options.get("port") or "").split(",")
    if len(hosts) == 1 or "hostaddr" in options or len(ports) not in (1, len(hosts)):
        return []
    ports *= len(hosts) // len(ports)
    return [{**options, "host": host, "port": port} for host, port in zip(hosts, ports, strict=True)]


def _timeline(connection: psycopg.Connection[Any]) -> int:
    """0 where it cannot be told: a standby, or a database that only speaks the protocol of PostgreSQL."""
    name = _answer(connection, _TIMELINE)
    return int(name[:_DIGITS], 16) if name else 0


def _answer(connection: psycopg.Connection[Any], question: LiteralString) -> Any:
    """The value that a query gives; None if it fails."""
    with suppress(psycopg.Error):
        connection.autocommit = True
        try:
            row = connection.execute(question).fetchone()
            return None if row is None else row[0]
        finally:
            connection.autocommit = False
    return None
