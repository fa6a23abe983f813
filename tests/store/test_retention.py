"""Retention on each database: over simulated years, nothing goes early, nothing stays late, and what is kept
answers as before."""

from __future__ import annotations

import time
from random import Random
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from authz.domain.decision_log import DecisionEntry, DecisionQuery
from authz.domain.entities import (
    Course,
    CourseKey,
    Entity,
    Key,
    Membership,
    MembershipStatus,
    RetainedData,
    RetentionRule,
)
from authz.domain.erasures import ErasureRequest
from authz.domain.errors import ErrorReason, FailedPreconditionError, OutOfRangeError
from authz.domain.ids import ResourceRef, course_scope
from authz.domain.mutations import ChangeScope, Mutation, Operation, WriteRequest
from authz.domain.ports import Page
from authz.domain.retention import DAY_US, LIMITS, PeriodRequest
from authz.store import Store, tables
from authz.store.engine import read_transaction
from authz.store.log_tree import read_tree
from tests.store.directory import (
    Clock,
    create,
    notebook,
    open_with,
    remove,
    share,
    stored,
    student,
    touch,
    user,
    write,
)
from tests.store.test_decisions import ENTRY

YEAR_US = 365 * DAY_US
COURSE = CourseKey("c")
SCOPE = course_scope("c")
HERE = ChangeScope("c")
DAYS = {
    RetainedData.CHANGES: 365,
    RetainedData.MEMBERSHIPS: 180,
    RetainedData.DECISIONS: 90,
    RetainedData.IDEMPOTENCY_KEYS: 7,
    RetainedData.TOMBSTONES: 180,
}


@pytest.fixture
def clock() -> Clock:
    """Starts so that ten years fit before today: nothing is purged by a clock ahead of the database's."""
    started = Clock()
    started.now = time.time_ns() // 1000 - 11 * YEAR_US
    return started


def set_period(store: Store, data: RetainedData, days: int | None, **more: Any) -> RetentionRule:
    request = PeriodRequest(data=data, days=days, reason="the policy of the school", actor="user:dpo", **more)
    return store.retention.set_period(request)[0].entity


def set_periods(store: Store) -> None:
    for data, days in DAYS.items():
        set_period(store, data, days)


def purge(store: Store) -> int:
    """Take every step that is due; the number of steps."""
    steps = 0
    while store.retention.purge_progress() is not None:
        store.retention.advance_purge()
        steps += 1
    return steps


def rule_of(store: Store, data: RetainedData) -> RetentionRule:
    return next(each.entity for each in store.retention.rules() if each.entity.data is data)


def log_of(store: Store, after: int = 0) -> list[tuple[int, int, Mutation]]:
    """The changes that the log has after a revision, each with its revision and the time of that."""
    changes, revisions = tables.changes, tables.revisions
    with read_transaction(store.directory._engine) as connection:
        rows = connection.execute(
            select(changes.c.revision, revisions.c.committed_at, changes.c.mutation)
            .join(revisions, revisions.c.revision == changes.c.revision)
            .where(changes.c.revision > after)
            .order_by(changes.c.revision, changes.c.position)
        ).all()
    decode = msgspec.json.Decoder(Mutation).decode
    return [(row.revision, row.committed_at, decode(row.mutation)) for row in rows]


def past_of(store: Store, at: int) -> set[Entity]:
    """What there was at a time, in the course and on the platform, without the rules themselves."""
    found = store.directory.records_at(at, COURSE, lambda _: True, likely=HERE)
    return {each for each in found.entities if not isinstance(each, RetentionRule)}


def count(store: Store, table: Any) -> int:
    with read_transaction(store.directory._engine) as connection:
        return len(connection.execute(select(table)).all())


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
    for term in range(40 if store_url.startswith("sqlite") else 8):
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


def aged(store: Store, clock: Clock, days: int = 366) -> None:
    """Let time pass, and purge."""
    clock.now += (days + 1) * DAY_US
    purge(store)


def keys_logged(store: Store, *, below: int) -> list[tuple[Operation, Key]]:
    """What the log has of the first revisions."""
    return [(each.operation, each.key) for revision, _, each in log_of(store) if revision < below]


def test_each_step_is_whole_and_another_process_goes_on(store_url: str, clock: Clock, store: Store) -> None:
    set_period(store, RetainedData.CHANGES, 90)
    for number in range(8):
        write(
            store,
            touch(Course(id="c", ai_enabled=bool(number % 2))),
            touch(student("ada", f"c{number % 2}")) if number > 1 else create(Course(id=f"c{number}")),
        )
    clock.now += 91 * DAY_US
    then = past_of(store, clock.now)
    clock.now += DAY_US
    steps, through = 0, 0
    while True:
        another = open_with(store_url, clock, contents_at_once=3)
        if another.retention.purge_progress() is None:
            another.close()
            break
        another.retention.advance_purge()
        steps += 1
        rule = rule_of(another, RetainedData.CHANGES)
        assert rule.through is not None
        assert rule.through > through
        through = rule.through
        assert past_of(another, clock.now) == then
        another.close()
        assert read_tree(store_url).faults == ()
    assert steps > 2


def test_a_step_that_fails_has_done_nothing(
    store: Store, store_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(store, create(Course(id="c")))
    write(store, touch(Course(id="c", ai_enabled=True)))
    clock.now += 2000 * DAY_US
    before = log_of(store)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("authz.store.log_writer.append_leaves", killed)
        with pytest.raises(KeyboardInterrupt):
            store.retention.advance_purge()
    assert log_of(store) == before
    assert read_tree(store_url).purged == 0
    purge(store)
    assert [key for _, key in keys_logged(store, below=3)] == [COURSE]


def test_a_hold_keeps_what_concerns_the_subject_until_it_is_released(
    store: Store, store_url: str, clock: Clock
) -> None:
    set_period(store, RetainedData.MEMBERSHIPS, 30)
    ada = msgspec.structs.replace(student("ada", "c"), ends_at=clock.now + DAY_US)
    write(store, create(Course(id="c")), create(notebook("nb", SCOPE)))
    write(store, create(ada), create(msgspec.structs.replace(student("omar", "c"), ends_at=ada.ends_at)))
    write(store, touch(msgspec.structs.replace(ada, source_ref="moved")))
    write(store, remove(notebook("nb", SCOPE).key))
    store.decisions.append([msgspec.structs.replace(ENTRY, subject="user:ada", person="", at=clock.now)])
    store.decisions.append(
        [msgspec.structs.replace(ENTRY, decision_id="b", subject="user:omar", person="", at=clock.now)]
    )
    store.personal_data.hold(user("ada"), "case 12", "user:dpo")
    aged(store, clock, 1100)
    assert ada.key in stored(store)
    assert student("omar", "c").key not in stored(store)
    assert [each.subject for each in decided(store)] == ["user:ada"]
    aged(store, clock, 1100)
    assert keys_logged(store, below=5) == [
        (Operation.CREATE, COURSE),
        (Operation.CREATE, ada.key),
        (Operation.TOUCH, ada.key),
    ]
    store.personal_data.release_hold(user("ada"))
    purge(store)
    assert ada.key not in stored(store)
    assert decided(store) == ()
    assert keys_logged(store, below=5) == [(Operation.CREATE, COURSE), (Operation.TOUCH, ada.key)]
    aged(store, clock, 1100)
    assert keys_logged(store, below=5) == [(Operation.CREATE, COURSE)]
    assert read_tree(store_url).faults == ()


def decided(store: Store) -> tuple[DecisionEntry, ...]:
    return store.decisions.read(DecisionQuery(oldest_first=True), Page(100)).entries


def test_what_a_held_person_did_to_a_record_is_not_undone_in_the_past(store: Store, clock: Clock) -> None:
    """The creation stays for the hold, so the deletion by somebody else must stay as well."""
    by_ada = WriteRequest(mutations=(create(notebook("nb", SCOPE)),), actor="service:x for user:ada")
    write(store, create(Course(id="c")))
    store.directory.write(by_ada)
    write(store, touch(msgspec.structs.replace(notebook("nb", SCOPE), locked=True)))
    write(store, remove(notebook("nb", SCOPE).key))
    store.personal_data.hold(user("ada"), "case 12", "user:dpo")
    then = past_of(store, clock.now)
    aged(store, clock, 1100)
    assert past_of(store, clock.now) == then == {Course(id="c")}
    assert len(keys_logged(store, below=5)) == 4
    store.personal_data.release_hold(user("ada"))
    purge(store)
    assert past_of(store, clock.now) == then
    assert keys_logged(store, below=5) == [(Operation.CREATE, COURSE)]


def test_readers_continue_from_the_cut_and_not_from_before(store: Store, clock: Clock) -> None:
    tokens = []
    for number in range(4):
        write(store, touch(Course(id="c", ai_enabled=bool(number % 2))))
        tokens.append(store.directory.head())
    clock.now += 2000 * DAY_US
    write(store, create(Course(id="d")))
    purge(store)
    assert rule_of(store, RetainedData.CHANGES).through == 4
    with pytest.raises(OutOfRangeError, match="retention has purged") as refused:
        store.directory.read_log(tokens[2], 0, 10)
    assert refused.value.reason is ErrorReason.TOKEN_EXPIRED
    assert store.directory.follow(3, 10).after is None
    assert store.directory.follow(4, 10).after == tokens[3]
    assert [each.change.revision for each in store.directory.read_log(tokens[3], 0, 10).parts] == [5, 6]


def test_an_erasure_reaches_what_retention_has_left(store: Store, store_url: str, clock: Clock) -> None:
    zoe = Membership(user("zoe"), SCOPE, "student", source="sis", source_ref="zoe-7")
    both = [create(student("omar", "c")), create(zoe), create(student("iris", "c"))]
    write(store, create(Course(id="c")), *both, reason="for user:zoe")
    write(store, remove(student("omar", "c").key))
    aged(store, clock, 1100)
    signed = read_tree(store_url)
    assert signed.faults == ()
    write(store, touch(Course(id="c", ai_enabled=True)))
    store.personal_data.begin_erasure(ErasureRequest(subject=user("zoe"), reason="17", orphans=True))
    clock.now += 1100 * DAY_US
    assert store.retention.purge_progress() is None  # until the history is rewritten: it has two names then
    while store.personal_data.erasure_progress() is not None:
        store.personal_data.advance_erasure()
    assert store.retention.purge_progress() is not None
    tree = read_tree(store_url, [signed.size])
    assert (tree.faults, tree.roots[signed.size]) == ((), signed.roots[signed.size])
    assert "zoe" not in repr(log_of(store))
    aged(store, clock, 1100)
    assert read_tree(store_url, [signed.size]).roots[signed.size] == signed.roots[signed.size]
    assert read_tree(store_url).faults == ()


def test_a_membership_that_still_says_something_is_not_purged(store: Store, clock: Clock) -> None:
    ends = clock.now + DAY_US
    said = [
        Membership(user("done"), SCOPE, "student", status=MembershipStatus.COMPLETED, ends_at=ends),
        Membership(user("bad"), SCOPE, "student", status=MembershipStatus.SUSPENDED, ends_at=ends),
        Membership(user("late"), SCOPE, "student", suspended_until=ends, ends_at=ends),
        Membership(user("for-good"), SCOPE, "student"),
    ]
    over = Membership(user("over"), SCOPE, "student", ends_at=ends)
    write(store, create(Course(id="c")), create(notebook("nb", SCOPE)), *map(create, [*said, over]))
    write(store, create(share("nb", "over")), create(share("nb", "done")))
    aged(store, clock, 1100)
    kept = stored(store)
    assert {each.key for each in said} <= kept.keys()
    assert over.key not in kept
    assert share("nb", "over").key not in kept
    assert share("nb", "done").key in kept


def test_what_is_kept_for_ever_is_never_due(store: Store, clock: Clock) -> None:
    for data in RetainedData:
        if LIMITS[data].may_be_kept_for_ever:
            set_period(store, data, None)
    write(store, create(Course(id="c")))
    write(store, touch(Course(id="c", ai_enabled=True)))
    clock.now += 10 * YEAR_US
    assert store.retention.purge_progress() is None


def test_a_period_that_somebody_else_has_set_meanwhile_is_not_overwritten(store: Store) -> None:
    rules = {each.entity.data: each.version for each in store.retention.rules()}
    set_period(store, RetainedData.DECISIONS, 90, version=rules[RetainedData.DECISIONS])
    with pytest.raises(FailedPreconditionError, match="read it again"):
        set_period(store, RetainedData.DECISIONS, 120, version=rules[RetainedData.DECISIONS])


def test_a_clock_that_is_ahead_of_the_database_purges_nothing(store_url: str) -> None:
    right, ahead = Clock(), Clock()
    right.now = time.time_ns() // 1000
    ahead.now = right.now + 10 * YEAR_US
    one, other = open_with(store_url, right), open_with(store_url, ahead)
    first = write(one, create(Course(id="c")), idempotency_key="k")
    write(other, create(Course(id="d")), idempotency_key="l")
    assert other.retention.purge_progress() is None
    assert other.retention.advance_purge().removed == 0
    assert write(one, create(Course(id="c")), idempotency_key="k") == first
    one.close()
    other.close()
