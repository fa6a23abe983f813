"""A hold begins and ends between two transactions, and never within one that has read the holds."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import psycopg
import pytest
from sqlalchemy import Connection

from authz.domain.entities import Account, Course, RetainedData
from authz.domain.erasures import Hold
from authz.domain.errors import FailedPreconditionError
from authz.store.erasure_steps import begin
from authz.store.holds import read_holds
from tests.store.directory import create, open_with, remove, write
from tests.store.retention import YEAR_US, eleven_years_ago, log_of, purge, set_period
from tests.store.test_connections import others_wait
from tests.store.test_erasures import MAYA, REQUEST, fill
from tests.waiting import until


def begun(url: str, pool: ThreadPoolExecutor, call: Callable[[], None]) -> Future[None]:
    """A call that has ended, or that waits for another transaction."""
    call_of_other = pool.submit(call)
    with psycopg.connect(url, autocommit=True) as connection:
        until(lambda: call_of_other.done() or others_wait(connection))
    return call_of_other


def test_who_is_held_while_an_erasure_begins_is_told_that_it_has_begun(postgresql_url: str) -> None:
    one, other = open_with(postgresql_url), open_with(postgresql_url)
    fill(one)
    with ThreadPoolExecutor(1) as pool:
        with one.directory.transaction() as transaction:
            begin(transaction, REQUEST)
            hold = partial(other.personal_data.hold, MAYA, "case 12", "service:dpo")
            held = begun(postgresql_url, pool, hold)
        with pytest.raises(FailedPreconditionError, match="user:maya was erased"):
            held.result()
    assert one.personal_data.holds() == ()
    one.close()
    other.close()


def test_a_purge_keeps_nothing_for_a_hold_that_ends_meanwhile(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = eleven_years_ago()
    one, other = open_with(postgresql_url, clock), open_with(postgresql_url, clock)
    set_period(one, RetainedData.CHANGES, 365)
    write(one, create(Account(MAYA)))
    write(one, remove(Account(MAYA).key))
    one.personal_data.hold(MAYA, "case 12", "service:dpo")
    clock.now += 2 * YEAR_US
    write(one, create(Course("later")))
    released: list[Future[None]] = []
    with ThreadPoolExecutor(1) as pool:

        def read_before_the_release(connection: Connection) -> list[Hold]:
            found = read_holds(connection)
            if found and not released:
                released.append(begun(postgresql_url, pool, partial(other.personal_data.release_hold, MAYA)))
            return found

        monkeypatch.setattr("authz.store.compaction.read_holds", read_before_the_release)
        purge(one)
        released[0].result()
        purge(one)
    assert str(MAYA) not in repr([str(mutation.key) for _, _, mutation in log_of(one)])
    one.close()
    other.close()
