"""A purge on each database: what it leaves answers as before, and what is held stays."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import pytest
from sqlalchemy import select

from authz.domain.decision_log import DecisionEntry, DecisionQuery
from authz.domain.entities import Course, Key, Membership, MembershipStatus, RetainedData, RetentionRule
from authz.domain.erasures import ErasureRequest
from authz.domain.errors import ErrorReason, FailedPreconditionError, OutOfRangeError
from authz.domain.ids import Subject, SubjectType
from authz.domain.instants import DAY_US
from authz.domain.mutations import Operation, WriteRequest
from authz.domain.origin import Origin
from authz.domain.ports import Page
from authz.domain.retention import LIMITS
from authz.store import Store, tables
from authz.store.database.engine import read_transaction
from tests.databases import read_tree
from tests.store.directory import (
    Clock,
    create,
    hold,
    lift_restriction,
    notebook,
    open_with,
    release_hold,
    remove,
    restrict,
    share,
    stored,
    student,
    touch,
    user,
    write,
)
from tests.store.log.test_decisions import ENTRY
from tests.store.privacy.test_erasures import finished
from tests.store.retention import (
    COURSE,
    SCOPE,
    YEAR_US,
    count,
    eleven_years_ago,
    log_of,
    past_of,
    purge,
    rule_of,
    set_period,
)


@pytest.fixture
def clock() -> Clock:
    return eleven_years_ago()


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


def test_a_purge_of_many_steps_does_not_hold_up_the_purge_of_other_data(store_url: str, clock: Clock) -> None:
    store = open_with(store_url, clock, contents_at_once=1)
    for number in range(6):
        write(store, touch(Course(id="c", ai_enabled=bool(number % 2))), idempotency_key=f"k{number}")
    store.decisions.append([msgspec.structs.replace(ENTRY, at=clock.now)])
    clock.now += 2000 * DAY_US
    for _ in range(3):
        store.retention.advance_purge()
    assert (count(store, tables.idempotency_keys), decided(store)) == (2, ())
    assert rule_of(store, RetainedData.CHANGES).through == 1
    store.close()


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
        patched.setattr("authz.store.log.writer.next_leaves", killed)
        with pytest.raises(KeyboardInterrupt):
            store.retention.advance_purge()
    assert log_of(store) == before
    assert read_tree(store_url).purged == 0
    purge(store)
    assert [key for _, key in keys_logged(store, below=3)] == [COURSE]


HOLDS = {"hold": (hold, release_hold), "restriction": (restrict, lift_restriction)}


@pytest.mark.parametrize("what", HOLDS)
def test_a_hold_keeps_what_concerns_the_subject_until_it_is_released(
    store: Store, store_url: str, clock: Clock, what: str
) -> None:
    begin, end = HOLDS[what]
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
    begin(store, user("ada"))
    aged(store, clock, 1100)
    assert ada.key in stored(store)
    assert student("omar", "c").key not in stored(store)
    assert [each.subject for each in decided(store)] == ["user:ada"]
    purged = rule_of(store, RetainedData.DECISIONS)
    assert (purged.removed, purged.through) == (1, 2)
    aged(store, clock, 1100)
    assert keys_logged(store, below=5) == [
        (Operation.CREATE, COURSE),
        (Operation.CREATE, ada.key),
        (Operation.TOUCH, ada.key),
    ]
    end(store, user("ada"))
    purge(store)
    assert ada.key not in stored(store)
    assert decided(store) == ()
    purged = rule_of(store, RetainedData.DECISIONS)
    assert (purged.removed, purged.through) == (2, 2)
    assert keys_logged(store, below=5) == [(Operation.CREATE, COURSE), (Operation.TOUCH, ada.key)]
    aged(store, clock, 1100)
    assert keys_logged(store, below=5) == [(Operation.CREATE, COURSE)]
    assert read_tree(store_url).faults == ()


def test_many_small_batches_of_decisions_are_purged_in_one_revision(
    store: Store, store_url: str, clock: Clock
) -> None:
    """Each revision stays for years; a process with little to log stores two batches per second."""
    asked = ("omar", "omar", "ada", "iris") * 20
    for number, name in enumerate(asked):
        entry = msgspec.structs.replace(ENTRY, decision_id=f"d-{number}", subject=f"user:{name}", person="")
        store.decisions.append([msgspec.structs.replace(entry, at=clock.now + number)])
    hold(store, user("ada"))
    clock.now += 1100 * DAY_US
    purge(store)
    rules = [each.target for *_, each in log_of(store) if isinstance(each.target, RetentionRule)]
    assert [each.data for each in rules].count(RetainedData.DECISIONS) == 1
    assert [each.subject for each in decided(store)] == ["user:ada"] * 20
    purged = rule_of(store, RetainedData.DECISIONS)
    assert (purged.removed, purged.through) == (60, 80)
    assert read_tree(store_url).faults == ()


def decided(store: Store) -> tuple[DecisionEntry, ...]:
    return store.decisions.read(DecisionQuery(oldest_first=True), Page(100)).entries


def test_what_a_held_person_did_to_a_record_is_not_undone_in_the_past(store: Store, clock: Clock) -> None:
    """The creation stays for the hold, so the deletion by somebody else must stay as well."""
    by_ada = WriteRequest(mutations=(create(notebook("nb", SCOPE)),), origin=Origin("service:x for user:ada"))
    write(store, create(Course(id="c")))
    store.directory.write(by_ada)
    write(store, touch(msgspec.structs.replace(notebook("nb", SCOPE), locked=True)))
    write(store, remove(notebook("nb", SCOPE).key))
    hold(store, user("ada"))
    then = past_of(store, clock.now)
    aged(store, clock, 1100)
    assert past_of(store, clock.now) == then == {Course(id="c")}
    assert len(keys_logged(store, below=5)) == 4
    release_hold(store, user("ada"))
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
    store.personal_data.begin_erasure(
        ErasureRequest(subject=user("zoe"), origin=Origin(reason="17"), orphans=True)
    )
    clock.now += 1100 * DAY_US
    finished(store)
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


def test_the_keys_of_whoever_is_held_stay_and_those_of_others_are_purged(store: Store, clock: Clock) -> None:
    kept = {
        "service:lms",
        "service:lms for user:stu",
        "service:x for user:maya",
        "service:x for user:pia",
        "user:maya",
    }
    purged = {"service:x", "service:x for user:stu", "service:lms2 for user:stu", "service:x for user:maya2"}
    hold(store, user("maya"))
    hold(store, Subject(SubjectType.SERVICE, "lms"))
    restrict(store, user("pia"))
    for number, actor in enumerate(sorted(kept | purged)):
        request = WriteRequest(
            mutations=(create(Course(f"c{number}")),), origin=Origin(actor), idempotency_key="k"
        )
        store.directory.write(request)
    aged(store, clock, 30)
    with read_transaction(store.directory._engine) as connection:
        assert {*connection.scalars(select(tables.idempotency_keys.c.actor))} == kept


def test_the_hold_on_a_service_keeps_no_membership_of_the_person_with_its_id(
    store: Store, clock: Clock
) -> None:
    ended = [Membership(user(name), SCOPE, "student", ends_at=clock.now + 1) for name in ("maya", "stu")]
    write(store, create(Course(id="c")), *map(create, ended))
    hold(store, Subject(SubjectType.SERVICE, "maya"))
    hold(store, user("stu"))
    aged(store, clock, 1100)
    assert [each.key in stored(store) for each in ended] == [False, True]


def remove_resources(store: Store, number: int) -> None:
    nb = notebook(f"nb{number}", SCOPE)
    write(store, create(nb))
    write(store, remove(nb.key))


OLD: dict[RetainedData, Callable[[Store, int], object]] = {
    RetainedData.TOMBSTONES: remove_resources,
    RetainedData.IDEMPOTENCY_KEYS: lambda store, number: write(
        store, create(Course(id=f"c{number}")), idempotency_key=f"k{number}"
    ),
    RetainedData.MEMBERSHIPS: lambda store, number: write(
        store, create(Membership(user(f"u{number}"), SCOPE, "student", ends_at=1))
    ),
}


@pytest.mark.parametrize("data", OLD)
def test_nothing_is_complete_before_the_last_step(store_url: str, clock: Clock, data: RetainedData) -> None:
    store = open_with(store_url, clock, contents_at_once=4)
    write(store, create(Course(id="c")))
    for number in range(18):
        OLD[data](store, number)
    for each in RetainedData:
        if each is not data and LIMITS[each].may_be_kept_for_ever:
            set_period(store, each, None)
    clock.now += 1100 * DAY_US
    store.retention.advance_purge()
    assert rule_of(store, data).complete_since is None
    purge(store)
    assert rule_of(store, data).removed == 18
    assert rule_of(store, data).complete_since is not None
    store.close()


def test_what_is_kept_for_ever_is_never_due(store: Store, clock: Clock) -> None:
    for data in RetainedData:
        if LIMITS[data].may_be_kept_for_ever:
            set_period(store, data, None)
    write(store, create(Course(id="c")))
    write(store, touch(Course(id="c", ai_enabled=True)))
    clock.now += 10 * YEAR_US
    assert store.retention.purge_progress() is None


def test_a_period_that_somebody_else_has_set_meanwhile_is_not_overwritten(store: Store) -> None:
    rules = {each.entity.data: each.revision for each in store.retention.rules()}
    set_period(store, RetainedData.DECISIONS, 90, revision=rules[RetainedData.DECISIONS])
    with pytest.raises(FailedPreconditionError, match="read it again"):
        set_period(store, RetainedData.DECISIONS, 120, revision=rules[RetainedData.DECISIONS])


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
