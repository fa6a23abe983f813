"""Decisions that a hold or a restriction keeps: until it ends, and looked at again only then."""

from __future__ import annotations

from itertools import permutations

import msgspec
import pytest

from authz.domain.decision_log import DecisionQuery
from authz.domain.ids import Subject
from authz.domain.instants import DAY_US
from authz.domain.ports import Page
from authz.store import Store
from tests.store.directory import Clock, hold, lift_restriction, open_with, release_hold, restrict, user
from tests.store.log.test_decisions import ENTRY
from tests.store.retention import eleven_years_ago, purge

ADA, IRIS, OMAR = PEOPLE = (user("ada"), user("iris"), user("omar"))
A_STEP = 4
"""Entries that one step purges, if a transaction takes one record."""


def log(store: Store, clock: Clock, *subjects: Subject) -> None:
    """Log a batch of a step's size about these subjects."""
    clock.now += 1
    entries = [
        msgspec.structs.replace(
            ENTRY, at=clock.now, decision_id=f"d{clock.now}-{number}", subject=str(subject)
        )
        for number, subject in zip(range(A_STEP), [*subjects] * A_STEP, strict=False)
    ]
    store.decisions.append(entries)


def batches(store: Store) -> int:
    return len(store.decisions.read(DecisionQuery(), Page(100, "")).entries) // A_STEP


def test_the_end_of_a_restriction_has_no_decisions_of_others_looked_at_again(store_url: str) -> None:
    clock = eleven_years_ago()
    store = open_with(store_url, clock, contents_at_once=1)
    for each in PEOPLE:
        log(store, clock, each)
        restrict(store, each)
    clock.now += 400 * DAY_US
    purge(store)
    left = [batches(store)]
    for each in PEOPLE:
        lift_restriction(store, each)
        assert purge(store) == 1
        left.append(batches(store))
    assert left == [3, 2, 1, 0]
    store.close()


@pytest.mark.parametrize("order", [*permutations(PEOPLE)])
def test_decisions_about_several_are_kept_until_the_last_hold_ends(
    sqlite_url: str, order: tuple[Subject, ...]
) -> None:
    clock = eleven_years_ago()
    store = open_with(sqlite_url, clock, contents_at_once=1)
    log(store, clock, *PEOPLE)
    for each in PEOPLE:
        hold(store, each)
    restrict(store, ADA)
    clock.now += 400 * DAY_US
    for each in order:
        purge(store)
        assert batches(store) == 1
        release_hold(store, each)
    purge(store)
    assert batches(store) == 1
    lift_restriction(store, ADA)
    purge(store)
    assert batches(store) == 0
    store.close()
