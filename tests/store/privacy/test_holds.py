"""A hold is a record like others, and begins and ends between two transactions that read the holds."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import psycopg
import pytest
from sqlalchemy import Connection, Executable, delete, update

from authz.domain.entities import Account, Course, Hold, RetainedData
from authz.domain.erasures import RenameRequest
from authz.domain.errors import ErrorReason, FailedPreconditionError
from authz.domain.ids import Subject
from authz.domain.mutations import Operation
from authz.domain.origin import Origin
from authz.domain.tokens import ConsistencyToken
from authz.store import Store
from authz.store.database.engine import open_engine, write_transaction
from authz.store.privacy.erasure_steps import begin
from authz.store.privacy.holds import HOLDS, held_subjects
from tests.databases import read_tree
from tests.store.database.test_connections import others_wait
from tests.store.directory import create, hold, open_with, release_hold, remove, user, write
from tests.store.privacy.test_erasures import MAYA, REQUEST, STU, fill, finished
from tests.store.privacy.test_erasures import log_of as text_of_log
from tests.store.retention import YEAR_US, eleven_years_ago, log_of, purge, set_period
from tests.waiting import until

T = TypeVar("T")


def begun(url: str, pool: ThreadPoolExecutor, call: Callable[[], T]) -> Future[T]:
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
            held = begun(postgresql_url, pool, partial(hold, other, MAYA))
        with pytest.raises(FailedPreconditionError, match="user:maya was erased"):
            held.result()
    assert one.personal_data.holds() == ()
    one.close()
    other.close()


def test_an_erasure_that_begins_while_somebody_is_held_is_refused_with_the_reason(
    postgresql_url: str,
) -> None:
    one, other = open_with(postgresql_url), open_with(postgresql_url)
    fill(one)
    placed = Hold(MAYA, "case 12", "service:dpo", 1)
    with ThreadPoolExecutor(1) as pool:
        with one.directory.transaction() as transaction:
            with transaction.revision(Origin(placed.actor, placed.reason, "")) as batch:
                batch.rewrite([placed])
            erasure = begun(postgresql_url, pool, partial(other.personal_data.begin_erasure, REQUEST))
        with pytest.raises(FailedPreconditionError, match="so nothing is erased: case 12") as refused:
            erasure.result()
    assert refused.value.reason is ErrorReason.SUBJECT_HELD
    one.close()
    other.close()


def test_of_two_who_release_a_hold_at_once_one_does(store_url: str) -> None:
    one, other = open_with(store_url), open_with(store_url)
    hold(one, MAYA)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(release_hold, each, MAYA) for each in (one, other)]
    errors = [each.exception() for each in calls]
    (refused,) = filter(None, errors)
    assert isinstance(refused, FailedPreconditionError)
    changes = one.directory.follow(0, 10).changes
    assert [mutation.operation for each in changes for mutation in each.mutations] == [
        Operation.TOUCH,
        Operation.DELETE,
    ]
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
    hold(one, MAYA)
    clock.now += 2 * YEAR_US
    write(one, create(Course("later")))
    released: list[Future[ConsistencyToken]] = []
    with ThreadPoolExecutor(1) as pool:

        def read_before_the_release(connection: Connection) -> set[Subject]:
            found = held_subjects(connection)
            if found and not released:
                released.append(begun(postgresql_url, pool, partial(release_hold, other, MAYA)))
            return found

        monkeypatch.setattr("authz.store.log.compaction.held_subjects", read_before_the_release)
        purge(one)
        released[0].result()
        purge(one)
    kept = [mutation.key for _, _, mutation in log_of(one)]
    assert Account(MAYA).key not in kept
    one.close()
    other.close()


def test_a_hold_is_logged_when_it_is_placed_replaced_and_released(store: Store, store_url: str) -> None:
    write(store, create(Account(MAYA)))
    placed = hold(store, MAYA, "case 12", "service:x for user:dpo")
    replaced = hold(store, MAYA, "case 13")
    (found,) = store.personal_data.holds()
    assert (found.entity.reason, found.revision) == ("case 13", replaced.revision)
    with pytest.raises(FailedPreconditionError, match="so nothing is erased: case 13") as refused:
        store.personal_data.begin_erasure(REQUEST)
    assert refused.value.reason is ErrorReason.SUBJECT_HELD
    released = release_hold(store, MAYA, "both are closed")
    assert [placed.revision, replaced.revision, released.revision] == [2, 3, 4]
    changes = store.directory.follow(1, 10).changes
    assert [(each.actor, each.reason) for each in changes] == [
        ("service:x for user:dpo", "case 12"),
        ("service:dpo", "case 13"),
        ("service:dpo", "both are closed"),
    ]
    assert [(each.operation, each.before is None) for change in changes for each in change.mutations] == [
        (Operation.TOUCH, True),
        (Operation.TOUCH, False),
        (Operation.DELETE, True),
    ]
    assert store.personal_data.holds() == ()
    with pytest.raises(FailedPreconditionError, match="is not held"):
        release_hold(store, MAYA)
    assert read_tree(store_url).faults == ()


def test_nobody_learns_from_the_log_who_was_held_before_the_erasure(store: Store, store_url: str) -> None:
    write(store, create(Account(MAYA)))
    hold(store, MAYA, "maya sues", f"service:x for {STU}")
    hold(store, STU, f"he wrote to {MAYA}", f"service:x for {MAYA}")
    release_hold(store, MAYA, "maya has settled")
    signed = read_tree(store_url)
    store.personal_data.begin_erasure(REQUEST)
    finished(store)
    assert "maya" not in text_of_log(store)
    (left,) = store.personal_data.holds()
    assert left.entity.subject == STU
    assert left.entity.reason.startswith("he wrote to user:erased-")
    assert left.entity.actor.startswith("service:x for user:erased-")
    tree = read_tree(store_url, [signed.size])
    assert (tree.faults, tree.roots[signed.size]) == ((), signed.roots[signed.size])


def test_an_erasure_finds_the_hold_of_a_person_among_many_of_a_namesake(store_url: str) -> None:
    store = open_with(store_url, contents_at_once=2)
    for number in range(4):
        hold(store, user(f"u{number}"), actor=f"service:x for {MAYA}{2 if number < 3 else ''}")
    store.personal_data.begin_erasure(REQUEST)
    finished(store)
    of_namesake = "service:x for user:maya2"
    *others, last = (each.entity.actor for each in store.personal_data.holds())
    assert others == [of_namesake] * 3
    assert last.startswith("service:x for user:erased-")
    assert read_tree(store_url).faults == ()
    store.close()


def test_a_rename_to_a_held_id_leaves_the_hold_as_it_is(store: Store) -> None:
    write(store, create(Account(STU)))
    hold(store, MAYA)
    held = store.personal_data.holds()
    store.personal_data.rename(RenameRequest(subject=STU, to=MAYA, origin=Origin(reason="one person")))
    assert store.personal_data.holds() == held


ATTEMPTS: dict[str, tuple[Executable, str]] = {
    "a hold less": (delete(HOLDS), "hold on user:maya of revision 2 is gone"),
    "another reason": (update(HOLDS).values(reason="none"), "hold on user:maya is not as revision 2 made it"),
    "another officer": (update(HOLDS).values(actor="x"), "hold on user:maya is not as revision 2 made it"),
    "another time": (update(HOLDS).values(since=1), "hold on user:maya is not as revision 2 made it"),
    "another person": (
        update(HOLDS).values(subject_id="stu"),
        "hold on user:stu is not in the change log",
    ),
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_whoever_changes_a_hold_in_the_database_is_found_out(store: Store, store_url: str, name: str) -> None:
    attempt, told = ATTEMPTS[name]
    write(store, create(Account(MAYA)))
    hold(store, MAYA)
    assert read_tree(store_url).faults == ()
    engine = open_engine(store_url)
    with write_transaction(engine) as connection:
        connection.execute(attempt)
    engine.dispose()
    assert told in read_tree(store_url).faults
