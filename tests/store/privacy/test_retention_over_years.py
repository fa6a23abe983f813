"""Over simulated years, retention purges nothing early and keeps nothing late, on each database."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from authz.domain.decision_log import DecisionEntry, DecisionQuery
from authz.domain.entities import Course, Entity, Key, Membership, RetainedData
from authz.domain.errors import ErrorReason, OutOfRangeError
from authz.domain.ids import ResourceRef
from authz.domain.instants import DAY_US
from authz.domain.mutations import Mutation, Operation
from authz.domain.ports import Page
from authz.store import Store, tables
from authz.store.database.engine import read_transaction
from tests.databases import read_tree
from tests.properties import LONG
from tests.store.directory import Clock, create, notebook, remove, stored, student, touch, user, write
from tests.store.log.test_decisions import ENTRY
from tests.store.retention import (
    DAYS,
    SCOPE,
    count,
    eleven_years_ago,
    log_of,
    past_of,
    purge,
    rule_of,
    set_periods,
)


@pytest.fixture
def clock() -> Clock:
    return eleven_years_ago()


class School:
    """Writes at random, as a school does, and remembers everything."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.written: list[tuple[int, int, Mutation]] = []
        """As `log_of`, of all that was ever logged."""
        self.pasts: dict[int, set[Entity]] = {}
        self.decided: list[DecisionEntry] = []
        self.keys: dict[str, int] = {}
        self.removed: dict[ResourceRef, int] = {}
        self._random = Random(7)
        write(store, create(Course(id="c")))

    def term(self) -> None:
        """What happens in a quarter of a year, at its beginning."""
        number = len(self.pasts)
        pick = self._random.randrange
        now = self.clock.now
        there = stored(self.store)
        notebooks = [key for key in there if isinstance(key, ResourceRef)]
        ended = Membership(user(f"m{number}"), SCOPE, "student", ends_at=now + pick(90) * DAY_US)
        changes = [create(ended), touch(Course(id="c", ai_enabled=bool(number % 2)))]
        changes += [create(notebook(f"nb{number}", SCOPE)), touch(student(f"s{pick(9)}", "c"))]
        changes += [remove(key) for key in notebooks[: pick(3)]]
        left = student(f"s{pick(9)}", "c").key
        if left in there and left != changes[3].key:
            changes.append(remove(left))
        self.keys[f"k{number}"] = now
        write(self.store, *changes, idempotency_key=f"k{number}")
        write(self.store, touch(msgspec.structs.replace(ended, source_ref="moved")))
        self.removed |= {
            m.key: now for m in changes if m.operation is Operation.DELETE and m.key in notebooks
        }
        entry = msgspec.structs.replace(ENTRY, decision_id=f"d{number}", at=now)
        self.store.decisions.append([entry])
        self.decided.append(entry)
        self.pasts[now] = past_of(self.store, now)

    def learn(self) -> None:
        """Remember what was logged since."""
        last = self.written[-1][0] if self.written else 0
        self.written += log_of(self.store, last)

    def require_kept(self) -> None:
        """Nothing is gone early, and nothing is there a day after its time."""
        now = self.clock.now
        late = {data: now - (days + 1) * DAY_US for data, days in DAYS.items()}
        early = {data: now - days * DAY_US for data, days in DAYS.items()}
        self._require_log(early[RetainedData.CHANGES], late[RetainedData.CHANGES])
        decided = self.store.decisions.read(DecisionQuery(oldest_first=True), Page(1000)).entries
        times = {each.decision_id: each.at for each in self.decided}
        require_between(times, {each.decision_id for each in decided}, RetainedData.DECISIONS, early, late)
        with read_transaction(self.store.directory._engine) as connection:
            keys = {row.key for row in connection.execute(select(tables.idempotency_keys))}
        require_between(self.keys, keys, RetainedData.IDEMPOTENCY_KEYS, early, late)
        with self.store.directory.dump() as dump:
            tombstones = {ref for ref, _ in dump.tombstones()}
        require_between(self.removed, tombstones, RetainedData.TOMBSTONES, early, late)
        ends = {
            mutation.key: mutation.target.ends_at
            for _, _, mutation in self.written
            if isinstance(mutation.target, Membership) and mutation.target.ends_at is not None
        }
        require_between(ends, set(stored(self.store)), RetainedData.MEMBERSHIPS, early, late)

    def _require_log(self, early: int, late: int) -> None:
        """What is newer than the period is there, and of the rest the last change of each record."""
        last: dict[Key, tuple[int, Key]] = {}
        for revision, at, mutation in self.written:
            if at < late:
                last.pop(mutation.key, None)
                if mutation.operation is not Operation.DELETE:
                    last[mutation.key] = revision, mutation.key
        kept = {(revision, mutation.key) for revision, _, mutation in log_of(self.store)}
        recent = {(revision, mutation.key) for revision, at, mutation in self.written if at >= early}
        between = {(revision, mutation.key) for revision, at, mutation in self.written if late <= at < early}
        assert recent <= kept
        assert kept <= recent | between | set(last.values())
        superseded = {mutation.key for _, at, mutation in self.written if late <= at < early}
        assert {each for each in last.values() if each[1] not in superseded} <= kept


def require_between(
    times: dict[Any, int],
    there: set[Any],
    data: RetainedData,
    early: dict[RetainedData, int],
    late: dict[RetainedData, int],
) -> None:
    """All that is newer than the period is there, and nothing that is a day older."""
    assert {each for each, at in times.items() if at >= early[data]} <= there
    assert not {each for each, at in times.items() if at < late[data]} & there


def test_over_years_nothing_goes_early_and_nothing_stays_late(
    store: Store, store_url: str, clock: Clock
) -> None:
    set_periods(store)
    school = School(store, clock)
    sizes = []
    for term in range(40 if LONG or store_url.startswith("sqlite") else 8):
        school.term()
        school.learn()
        clock.now += 90 * DAY_US
        purge(store)
        school.learn()
        if term % 4 == 3:
            school.require_kept()
        sizes.append([count(store, table) for table in (tables.changes, tables.revisions, tables.decisions)])
    bounds = [1.2 * max(each) for each in zip(*sizes[4:10], strict=True)]
    assert all(size <= bound for found in sizes for size, bound in zip(found, bounds, strict=True))
    since = rule_of(store, RetainedData.CHANGES).complete_since
    assert since is not None
    answered = {at: past for at, past in school.pasts.items() if at >= since}
    assert len(answered) >= 4
    assert {at: past_of(store, at) for at in answered} == answered
    with pytest.raises(OutOfRangeError, match="retention has purged") as refused:
        past_of(store, since - 1)
    assert refused.value.reason is ErrorReason.TOKEN_EXPIRED
    tree = read_tree(store_url)
    assert (tree.faults, tree.size) == ((), store.directory.head().revision)
    assert tree.purged > tree.through / 2
