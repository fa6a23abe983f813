"""A statement that PostgreSQL does not answer in time fails; one that may take long is left alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from authz.domain.entities import Course, CourseKey
from authz.domain.errors import UnavailableError
from authz.domain.kinds.course import COURSE
from authz.store import Store
from authz.store.database import connections, timed_connection
from tests.store.directory import create, open_with, write

TIMEOUT_S = 1.0


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog waits a moment, not twenty seconds."""
    monkeypatch.setattr(timed_connection, "DATABASE_ANSWER_TIMEOUT_S", TIMEOUT_S)
    monkeypatch.setattr(connections, "_CHECK_INTERVAL_S", 0.02)


@pytest.fixture
def store(postgresql_url: str, impatient: None) -> Iterator[Store]:
    """A store with a watchdog."""
    opened = open_with(postgresql_url)
    write(opened, create(Course(id="c")))
    yield opened
    opened.close()


def test_a_statement_without_an_answer_fails_and_the_next_connects_again(
    store: Store, postgresql_url: str
) -> None:
    with psycopg.connect(postgresql_url) as other:
        other.execute("LOCK TABLE counter IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(UnavailableError):
            store.directory.head()
        with pytest.raises(UnavailableError):
            write(store, create(Course(id="d")))
        other.rollback()
    assert write(store, create(Course(id="d"))) == 2


def test_a_connection_that_waits_for_no_answer_is_left_alone(store: Store, postgresql_url: str) -> None:
    notifier = store.directory.notifier()
    notifier.wait(0, lambda: 1)  # listens from here on
    with store.directory.dump() as dump:
        notifier.wait(2 * TIMEOUT_S, lambda: 1)
        assert [each.key for each in dump.entities(COURSE)] == [CourseKey("c")]
    with psycopg.connect(postgresql_url, autocommit=True) as other:
        listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        assert other.execute(listening).fetchone() == (1,)
    notifier.close()


def test_a_dump_may_wait_long_for_its_rows(store: Store, postgresql_url: str) -> None:
    with (
        store.directory.dump() as dump,
        psycopg.connect(postgresql_url) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        other.execute("LOCK TABLE courses IN ACCESS EXCLUSIVE MODE")
        reading = pool.submit(lambda: [each.key for each in dump.entities(COURSE)])
        time.sleep(2 * TIMEOUT_S)
        assert not reading.done()
        other.rollback()
        assert reading.result(30) == [CourseKey("c")]
    # The same connection, used again, is watched as before.
    with psycopg.connect(postgresql_url) as other:
        other.execute("LOCK TABLE counter IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(UnavailableError):
            store.directory.head()
