"""Finds the newest primary of a PostgreSQL with standbys, where an old one that came back takes writes, too.

A promotion begins a timeline, with a higher number. Of two servers that take writes, the one on the lower
timeline lacks what the other has acknowledged since.
Source: https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES

A module of its own, which is imported when a connection is made, as `timed_connection`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from typing import Any, Generic, LiteralString, NamedTuple, TypeVar

import psycopg

_SEARCHING = {"connect_timeout": 2}
"""For a host that does not answer while others are searched: the least that libpq takes."""
_TIMELINE = """
    SELECT pg_walfile_name(pg_current_wal_insert_lsn()), system_identifier FROM pg_control_system()
"""
_NOTICE_OUR_END = """
    SELECT set_config('tcp_keepalives_idle', '4', false), set_config('tcp_keepalives_interval', '2', false),
        set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '10000', false)
"""
"""PostgreSQL then ends a connection, its transaction and its locks ten seconds after our host vanished. By
default that takes two hours, in which a write that was begun blocks all others, and lost connections take the
room of new ones. A limit on idle transactions is not enough: PostgreSQL does not count the time after
psycopg's `executemany`, which ends with a message that is no statement."""
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
        with suppress(psycopg.Error), closing(psycopg.connect(**{**each, **_SEARCHING})) as found:
            host = f"{found.info.host}:{found.info.port}"
            _, timeline = _timeline(found)
            yield Primary(host, timeline, _answer(found, _LACKS_STANDBY) == (True,))


class NewestPrimary(Generic[_Connection]):
    """Connects to no primary that is older than one that was seen before."""

    def __init__(self, connect: Callable[..., _Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._newest: dict[int, int] = {}
        self._searching = threading.Lock()
        self._searched = False
        self._timelines: weakref.WeakKeyDictionary[_Connection, tuple[int, int]] = weakref.WeakKeyDictionary()
        self._last: tuple[str, str] | None = None
        """The host and the port of the last connection, or before any, of the first one that takes writes."""

    def connect(
        self, options: Mapping[str, Any], connected: Callable[[_Connection], None] = lambda _: None
    ) -> _Connection:
        """A connection; `connected` is told of each one that waits for an answer. Before the first, looks at
        every host. Raises psycopg's `OperationalError`, also if none but an old primary takes writes."""
        with self._searching:
            if not self._searched:
                self.search(options, connected)
        made = self._connect_newest(options, connected)
        for each in _each_host(options) if made is None else ():
            with suppress(psycopg.OperationalError):
                made = made or self._connect_newest(each, connected)
        if made is None:
            raise psycopg.OperationalError("only an old primary takes writes")
        return made

    def search(self, options: Mapping[str, Any], connected: Callable[[_Connection], None]) -> None:
        """Look at each of several hosts, and remember the newest primary."""
        for each in _each_host(options):
            with suppress(psycopg.Error), closing(self._connect(**{**each, **_SEARCHING})) as found:
                connected(found)
                self._is_old(found)
                self._last = self._last or _address(found)
        self._searched = True

    def outdated(self) -> list[_Connection]:
        """The open connections to primaries that have a successor by now."""
        with self._lock:
            return [
                made
                for made, (cluster, timeline) in self._timelines.items()
                if timeline < self._newest[cluster] and not made.closed
            ]

    def _connect_newest(
        self, options: Mapping[str, Any], connected: Callable[[_Connection], None]
    ) -> _Connection | None:
        """None for an old primary."""
        made = self._connect(**(_beginning_with(self._last, options) if self._last else options))
        connected(made)
        _answer(made, _NOTICE_OUR_END)
        if self._is_old(made):
            made.close()
            return None
        self._last = _address(made)
        return made

    def _is_old(self, made: _Connection) -> bool:
        cluster, timeline = _timeline(made)
        with self._lock:
            self._timelines[made] = cluster, timeline
            newest = self._newest[cluster] = max(self._newest.get(cluster, 0), timeline)
        return timeline < newest


def has_several_hosts(options: Mapping[str, Any]) -> bool:
    """Whether another host may take writes."""
    return bool(_each_host(options))


def _each_host(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The options for each of several hosts; none for a single host, or where libpq itself finds them."""
    hosts = str(options.get("host") or "").split(",")
    ports = str(options.get("port") or "").split(",")
    if len(hosts) == 1 or "hostaddr" in options or len(ports) not in (1, len(hosts)):
        return []
    ports *= len(hosts) // len(ports)
    return [{**options, "host": host, "port": port} for host, port in zip(hosts, ports, strict=True)]


def _beginning_with(last: tuple[str, str], options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options with this one of several hosts before the others: libpq tries them in their order, and
    waits for one that hangs until `connect_timeout`, at each connection."""
    hosts = sorted(_each_host(options), key=lambda each: (each["host"], each["port"] or last[1]) != last)
    if not hosts:
        return options
    return {**options, **{name: ",".join(each[name] for each in hosts) for name in ("host", "port")}}


def _address(connection: psycopg.Connection[Any]) -> tuple[str, str]:
    return connection.info.host, str(connection.info.port)


def _timeline(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    """The cluster, and its timeline; 0 and 0 where they cannot be told: a standby, or a database that only
    speaks the protocol of PostgreSQL."""
    found = _answer(connection, _TIMELINE)
    return (0, 0) if found is None else (found[1], int(found[0][:_DIGITS], 16))


def _answer(connection: psycopg.Connection[Any], question: LiteralString) -> tuple[Any, ...] | None:
    """The row that a query gives; None if it fails."""
    with suppress(psycopg.Error):
        connection.autocommit = True
        try:
            return connection.execute(question).fetchone()
        finally:
            connection.autocommit = False
    return None
