"""A call that waits for an answer of PostgreSQL can be ended from without."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from authz.domain.entities import Course
from authz.domain.errors import UnavailableError
from authz.store import open_store
from tests.store.directory import VOCABULARY, Clock, create, open_with, write
from tests.waiting import until

_WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


def test_who_waits_for_an_answer_gets_an_error_at_a_stop(postgresql_url: str) -> None:
    store = open_with(postgresql_url)
    write(store, create(Course(id="c")))
    with psycopg.connect(postgresql_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("LOCK TABLE counter IN ACCESS EXCLUSIVE MODE")
        waiting = pool.submit(store.directory.head)
        until(lambda: others_wait(other), "nobody waits")
        store.directory.abort_connections()
        with pytest.raises(UnavailableError):
            waiting.result(5)
    store.close()


def test_after_a_stop_nobody_connects(postgresql_url: str) -> None:
    store = open_with(postgresql_url)
    write(store, create(Course(id="c")))
    store.directory.abort_connections()
    for _ in range(2):
        with pytest.raises(UnavailableError):
            store.directory.head()
    store.close()


@pytest.mark.parametrize("which", ["head", "write", "notifier"])
def test_who_waits_for_a_connection_gets_an_error_at_a_stop(which: str) -> None:
    # The system takes its calls, and nobody answers.
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        url = f"postgresql://postgres@127.0.0.1:{listener.getsockname()[1]}/postgres?connect_timeout=600"
        store = open_store(url, vocabularies=lambda *_: VOCABULARY, clock=Clock())
        notifier = store.directory.notifier()
        calls: dict[str, Callable[[], object]] = {
            "head": store.directory.head,
            "write": lambda: write(store, create(Course(id="c"))),
            "notifier": lambda: notifier.wait(60, lambda: 0),
        }
        waiting = pool.submit(calls[which])
        with listener.accept()[0]:
            store.directory.abort_connections()
            with pytest.raises(UnavailableError):
                waiting.result(60)
        notifier.close()
        store.close()


def others_wait(connection: psycopg.Connection[tuple[int]]) -> bool:
    """Whether anybody waits for a lock."""
    row = connection.execute(_WAITING).fetchone()
    return row is not None and row[0] > 0
