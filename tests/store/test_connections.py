"""A call that waits for an answer of PostgreSQL can be ended from without."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from authz.domain.entities import Course
from authz.domain.errors import UnavailableError
from tests.replica.conftest import until
from tests.store.directory import create, open_with, write

_WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


def test_who_waits_for_an_answer_gets_an_error_and_the_next_connects_anew(postgresql_url: str) -> None:
    store = open_with(postgresql_url)
    write(store, create(Course(id="c")))
    with psycopg.connect(postgresql_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("LOCK TABLE counter IN ACCESS EXCLUSIVE MODE")
        waiting = pool.submit(store.directory.head)
        until(lambda: others_wait(other), "nobody waits")
        store.directory.hang_up()
        with pytest.raises(UnavailableError):
            waiting.result(5)
        other.rollback()
    assert store.directory.head().revision == 1
    store.close()


def test_after_it_was_hung_up_for_good_nobody_connects(postgresql_url: str) -> None:
    store = open_with(postgresql_url)
    write(store, create(Course(id="c")))
    store.directory.hang_up(for_good=True)
    for _ in range(2):
        with pytest.raises(UnavailableError):
            store.directory.head()
    store.close()


def others_wait(connection: psycopg.Connection[tuple[int]]) -> bool:
    """Whether anybody waits for a lock."""
    row = connection.execute(_WAITING).fetchone()
    return row is not None and row[0] > 0
