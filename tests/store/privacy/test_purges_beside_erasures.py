"""Purges and erasures take turns at one change log, and neither loses what the other needs."""

from __future__ import annotations

import time
from collections import Counter
from random import Random

import msgspec
import pytest

from authz.domain.entities import Account, Course, Entity, Key, RetainedData
from authz.domain.ids import Subject
from authz.domain.instants import DAY_US
from authz.domain.mentions import with_subjects
from authz.domain.mutations import Operation
from authz.store import Store
from authz.store.privacy.erasure_steps import Phase
from tests.databases import read_tree
from tests.properties import LONG
from tests.store.directory import Clock, open_with, touch, user, write
from tests.store.log.test_compaction import NAMES, History
from tests.store.privacy.test_erasures import REQUEST
from tests.store.privacy.test_erasures_at_once import begin, next_step
from tests.store.retention import YEAR_US, log_of, purge, rule_of, set_period

ORDERS = [
    (name, seed) for name in ("sqlite", "postgresql") for seed in range(3 if LONG or name == "sqlite" else 1)
]
"""PostgreSQL takes some seconds for each, and takes no other path from one to the next."""


def a_year_ago() -> Clock:
    clock = Clock()
    clock.now = time.time_ns() // 1000 - YEAR_US
    return clock


def is_erasing(store: Store) -> bool:
    return store.personal_data.erasure_progress() is not None


def renamed(past: set[Entity], pseudonyms: dict[Subject, Subject]) -> set[Entity]:
    """What a past is after an erasure, apart from what a source called the erased."""
    found = (with_subjects(each, lambda subject: pseudonyms.get(subject, subject)) for each in past)
    return {_without_reference(each) for each in found}


def _without_reference(record: Entity) -> Entity:
    has_one = "source_ref" in record.__struct_fields__
    return msgspec.structs.replace(record, source_ref="") if has_one else record


def left_over(store: Store, through: int) -> list[Key]:
    """What a purge should have removed up to a revision: changes that later ones supersede, and deletions."""
    logged = [each for revision, _, each in log_of(store) if revision <= through]
    deletions = [each.key for each in logged if each.operation is Operation.DELETE]
    return [key for key, count in Counter(each.key for each in logged).items() if count > 1] + deletions


@pytest.mark.parametrize(("store_url", "seed"), ORDERS, indirect=["store_url"])
def test_in_any_order_names_are_gone_changes_are_purged_and_the_log_is_verified(
    store_url: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("authz.store.privacy.erase_history.CHANGES_SEARCHED", 2)
    random, clock = Random(seed), a_year_ago()
    store = open_with(store_url, clock, contents_at_once=5)
    set_period(store, RetainedData.CHANGES, 90)
    history = History(store, clock, seed)
    history.run()
    signed = read_tree(store_url)
    clock.now += 85 * DAY_US
    pseudonyms, left = {user("ada"): begin(store, user("ada"))}, [user("maya"), user("omar")]
    while next_step(store).phase is not Phase.HISTORY:
        store.personal_data.advance_erasure()
    while left or is_erasing(store) or store.retention.purge_progress() is not None:
        match random.randrange(20):
            case 0 if left:
                subject = left.pop()
                pseudonyms[subject] = begin(store, subject)
            case 1:
                assert read_tree(store_url, [signed.size]).faults == ()
            case number if number % 3 or not is_erasing(store):
                store.retention.advance_purge()
            case _:
                store.personal_data.advance_erasure()
    log = repr(log_of(store))
    assert [name for name in NAMES if f"id='{name}'" in log] == []
    tree = read_tree(store_url, [signed.size])
    assert (tree.faults, tree.roots[signed.size]) == ((), signed.roots[signed.size])
    rule = rule_of(store, RetainedData.CHANGES)
    assert rule.through is not None
    assert left_over(store, rule.through) == []
    for (at, course), past in history.pasts.items():
        if at >= (rule.complete_since or 0):
            assert renamed(history.past(at, course), {}) == renamed(past, pseudonyms)
    store.close()


def test_a_purge_goes_on_although_erasures_begin_all_the_time(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.store.privacy.erase_history.CHANGES_SEARCHED", 5)
    clock = a_year_ago()
    store = open_with(store_url, clock, contents_at_once=5)
    set_period(store, RetainedData.CHANGES, 90)
    for number in range(60):
        write(store, touch(Account(user(f"u{number % 20}"))), touch(Course("c", ai_enabled=number % 2 == 0)))
    last = store.directory.head().revision
    clock.now += 200 * DAY_US
    begin(store, user("u0"))
    phases: set[Phase] = set()
    for number in range(1, 10):
        for _ in range(12):
            phases.add(next_step(store).phase)
            store.personal_data.advance_erasure()
            store.retention.advance_purge()
        begin(store, user(f"u{number}"))
    assert phases >= {Phase.RECORDS, Phase.WAIT, Phase.HISTORY}
    assert (rule_of(store, RetainedData.CHANGES).through or 0) >= last
    store.close()


def test_a_purge_waits_for_a_rewrite_that_has_not_come_so_far(store_url: str) -> None:
    """Or the log would keep, under the pseudonym, what was deleted under the name."""
    clock = a_year_ago()
    store = open_with(store_url, clock)
    set_period(store, RetainedData.CHANGES, 90)
    write(store, touch(Account(REQUEST.subject)))
    clock.now += 200 * DAY_US
    begin(store, REQUEST.subject)
    while next_step(store).phase is not Phase.HISTORY:
        store.personal_data.advance_erasure()
    assert store.retention.purge_progress() is None
    store.personal_data.advance_erasure()
    assert next_step(store).position > 0
    assert purge(store) > 0
    store.close()
