"""Writes that share a transaction: each is all or none by itself, and as if it had been alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psycopg
import pytest

from authz.domain.entities import Course, CourseKey, CourseState, Resource, Session, SessionKey
from authz.domain.errors import AuthzError, ConflictError, ErrorReason, InvalidArgumentError
from authz.domain.ids import course_scope
from authz.domain.mutations import Expectation, Mutation, Operation, Precondition, WriteRequest
from authz.domain.origin import Origin
from authz.domain.tokens import ConsistencyToken
from authz.store import Store
from authz.store.database import engine
from authz.store.tables import REVISIONS_CHANNEL
from tests.store.directory import (
    changes_of,
    create,
    lesson,
    open_with,
    remove,
    replay,
    share,
    stored,
    student,
    touch,
    write,
)

ACTIVE = Course(id="c", state=CourseState.ACTIVE)


def of(*mutations: Mutation, key: str = "", actor: str = "test", reason: str = "") -> WriteRequest:
    """A write without preconditions."""
    return WriteRequest(mutations=mutations, idempotency_key=key, origin=Origin(actor, reason))


def after(precondition: Precondition, *mutations: Mutation) -> WriteRequest:
    """A write with a precondition."""
    return WriteRequest(mutations=mutations, preconditions=(precondition,))


def at(revision: int) -> Precondition:
    """The course `c` is at a revision."""
    return Precondition(CourseKey("c"), Expectation.AT_REVISION, revision)


def grouped(store: Store, *requests: WriteRequest) -> list[int | ErrorReason]:
    """What becomes of each; the log must then tell the state."""
    outcomes = store.directory.write_group(requests)
    log = changes_of(store, 0, 1000)
    assert [change.revision for change in log] == list(range(1, len(log) + 1))
    assert store.directory.head().revision == len(log)
    assert replay(log) == stored(store)
    return [each.reason if isinstance(each, AuthzError) else each.revision for each in outcomes]


def test_each_write_takes_a_revision_of_its_own_in_order(store: Store) -> None:
    assert grouped(store) == []
    assert grouped(store, *(of(create(Course(id=f"c{n}"))) for n in range(5))) == [1, 2, 3, 4, 5]
    assert grouped(store, of(create(Course(id="d")))) == [6]
    assert {key: revision for key, (_, revision) in stored(store).items()} == {
        **{CourseKey(f"c{n}"): n + 1 for n in range(5)},
        CourseKey("d"): 6,
    }


def test_a_repeat_in_the_same_group_is_answered_as_the_first(store: Store) -> None:
    keyed, other = of(create(Course(id="c")), key="k"), of(create(Course(id="d")))
    first, _, repeat = store.directory.write_group([keyed, other, keyed])
    assert repeat == first == store.directory.write(keyed)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (of(), ErrorReason.MISSING_FIELD),
        (of(create(Course(id="x")), create(Course(id="x"))), ErrorReason.DUPLICATE_MUTATION),
        (of(create(Course(id="x")), create(Course(id="c"))), ErrorReason.ENTITY_EXISTS),
        (of(create(Course(id="x")), create(student("maya", "none"))), ErrorReason.REFERENCE_NOT_FOUND),
        (of(create(Course(id="x")), create(Course(id="a\x00b"))), ErrorReason.MALFORMED_ID),
        (
            of(create(Resource(type="material", id="x", scope=course_scope("a\x00b")))),
            ErrorReason.MALFORMED_ID,
        ),
        (of(create(Course(id="x")), touch(Session(id="s"))), ErrorReason.SCOPE_IMMUTABLE),
        (of(remove(CourseKey("c")), touch(student("omar", "c"))), ErrorReason.REFERENCE_NOT_FOUND),
        (of(remove(CourseKey("c")), touch(share("s-nb", "omar"))), ErrorReason.REFERENCE_NOT_FOUND),
        (after(at(7), remove(CourseKey("c"))), ErrorReason.PRECONDITION_FAILED),
        (
            after(Precondition(CourseKey("a\x00b"), Expectation.EXISTS), create(Course(id="x"))),
            ErrorReason.MALFORMED_ID,
        ),
    ],
)
def test_one_at_fault_in_the_middle_fails_alone_and_leaves_nothing(
    store: Store, request_: WriteRequest, reason: ErrorReason
) -> None:
    first = of(*(create(entity) for entity in lesson("c", "s")))
    last = of(create(student("omar", "c")), touch(ACTIVE))
    assert grouped(store, first, request_, last) == [1, reason, 2]
    expected = {entity.key: (entity, 1) for entity in lesson("c", "s")}
    expected |= {entity.key: (entity, 2) for entity in (student("omar", "c"), ACTIVE)}
    assert stored(store) == expected


def test_preconditions_speak_of_what_earlier_writes_of_the_group_made(store: Store) -> None:
    absent = Precondition(CourseKey("c"), Expectation.NOT_EXISTS)
    outcomes = grouped(
        store,
        after(absent, create(Course(id="c"))),
        after(absent, create(Course(id="d"))),
        after(at(1), touch(ACTIVE)),
        after(at(1), touch(Course(id="c"))),
        after(at(2), remove(CourseKey("c"))),
        after(absent, create(Course(id="c"))),
    )
    failed = ErrorReason.PRECONDITION_FAILED
    assert outcomes == [1, failed, 2, failed, 3, 4]


def test_a_write_that_changes_nothing_is_answered_with_the_revision_before_it(store: Store) -> None:
    course = of(touch(Course(id="c")))
    other = of(touch(Course(id="d")))
    assert grouped(store, course, course, other, course) == [1, 1, 2, 2]


def test_one_key_twice_in_a_group_writes_once(store: Store) -> None:
    first = of(create(Course(id="c")), key="k")
    outcomes = grouped(
        store, first, of(create(Course(id="d"))), first, of(create(Course(id="e")), key="k"), first
    )
    assert outcomes == [1, 2, 1, ErrorReason.IDEMPOTENCY_KEY_REUSED, 1]
    assert grouped(store, first, of(create(Course(id="e")), key="k")) == [
        1,
        ErrorReason.IDEMPOTENCY_KEY_REUSED,
    ]


def test_the_key_of_a_write_that_failed_is_free_for_the_next_of_the_group(store: Store) -> None:
    early = of(create(student("maya", "c")), key="k")
    whole = of(create(student("maya", "c")), create(Course(id="c")), key="k")
    assert grouped(store, early, whole, whole) == [ErrorReason.REFERENCE_NOT_FOUND, 1, 1]


def test_a_deletion_takes_along_what_earlier_writes_of_the_group_put_in(store: Store) -> None:
    outcomes = grouped(
        store,
        of(*(create(entity) for entity in lesson("c", "s"))),
        of(create(student("omar", "c"))),
        of(remove(CourseKey("c"))),
        of(create(Course(id="c"))),
        of(create(student("omar", "c"))),
    )
    assert outcomes == [1, 2, 3, 4, 5]
    (deletion,) = changes_of(store, 2, 1)
    assert {m.target for m in deletion.mutations} == {*lesson("c", "s"), student("omar", "c")}
    assert {m.operation for m in deletion.mutations} == {Operation.DELETE}
    assert set(stored(store)) == {CourseKey("c"), student("omar", "c").key}


def test_what_went_with_a_course_may_be_made_anew_elsewhere_in_the_group(store: Store) -> None:
    write(store, *(create(entity) for entity in lesson("c", "s")))
    alone = Session(id="s")
    assert grouped(store, of(remove(CourseKey("c"))), of(create(alone))) == [2, 3]
    assert stored(store) == {alone.key: (alone, 3)}


def test_what_went_with_a_course_may_be_made_anew_by_the_same_write(store: Store) -> None:
    write(store, *(create(entity) for entity in lesson("c", "s")))
    alone = Session(id="s")
    failing = of(remove(CourseKey("c")), create(alone), create(student("maya", "none")))
    assert grouped(store, failing, of(remove(CourseKey("c")), create(alone))) == [
        ErrorReason.REFERENCE_NOT_FOUND,
        2,
    ]
    assert stored(store) == {alone.key: (alone, 2)}


def test_a_write_at_fault_leaves_what_it_had_changed_as_the_one_before_it_made_it(store: Store) -> None:
    write(store, *(create(entity) for entity in lesson("c", "s")))
    failing = of(touch(ACTIVE), create(Session(id="s")), create(student("maya", "none")))
    concluded = Course(id="d", state=CourseState.CONCLUDED)
    outcomes = grouped(
        store,
        of(create(Course(id="d")), remove(SessionKey("s"))),
        of(touch(concluded), create(Session(id="s")), create(student("maya", "none"))),
        failing,
    )
    assert outcomes == [2, ErrorReason.REFERENCE_NOT_FOUND, ErrorReason.REFERENCE_NOT_FOUND]
    assert stored(store)[CourseKey("d")] == (Course(id="d"), 2)


def test_the_log_keeps_who_and_why_of_each(store: Store) -> None:
    grouped(
        store,
        of(create(Course(id="c")), actor="service:a", reason="one"),
        of(create(Course(id="d")), actor="service:b", reason="two"),
    )
    log = changes_of(store, 0, 10)
    assert [(each.actor, each.reason) for each in log] == [("service:a", "one"), ("service:b", "two")]
    assert [len(each.mutations) for each in log] == [1, 1]


def test_when_the_transaction_fails_none_is_written(postgresql_url: str) -> None:
    store = open_with(postgresql_url)
    unstorable = of(create(Course(id="d")), reason="a\x00b")
    with pytest.raises(InvalidArgumentError):
        store.directory.write_group([of(create(Course(id="c"))), unstorable])
    assert (stored(store), store.directory.head().revision) == ({}, 0)
    assert grouped(store, of(create(Course(id="c")))) == [1]
    store.close()


@pytest.fixture
def two_stores(store_url: str) -> tuple[Store, Store]:
    """As two servers would open them."""
    return open_with(store_url), open_with(store_url)


def test_groups_of_two_servers_stay_gapless(two_stores: tuple[Store, Store]) -> None:
    def work(place: int) -> list[ConsistencyToken | AuthzError]:
        written: list[ConsistencyToken | AuthzError] = []
        for turn in range(10):
            group = [of(create(Course(id=f"c{place}-{turn}-{n}"))) for n in range(4)]
            written += two_stores[place % 2].directory.write_group(group)
        return written

    with ThreadPoolExecutor(4) as pool:
        given = [state for each in pool.map(work, range(4)) for state in each]
    assert sorted(state.revision for state in given if isinstance(state, ConsistencyToken)) == list(
        range(1, 161)
    )
    assert grouped(two_stores[0]) == []
    for store in two_stores:
        store.close()


def test_a_writer_that_waits_too_long_for_another_is_told_of_the_conflict(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_LOCK_TIMEOUT_S", 0.1)
    store = open_with(sqlite_url)
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ConflictError) as caught:
        store.directory.write_group([of(create(Course(id="c"))), of(create(Course(id="d")))])
    assert caught.value.reason is ErrorReason.WRITE_CONFLICT
    other.execute("COMMIT")
    other.close()
    assert grouped(store, of(create(Course(id="c")))) == [1]
    store.close()


def heard(connection: psycopg.Connection, call: Callable[[], object]) -> list[str]:
    """What is notified while `call` runs."""
    call()
    connection.execute(f"NOTIFY {REVISIONS_CHANNEL}, 'end'".encode())
    # Notifications arrive in the order of the commits.
    return list(iter(lambda: next(connection.notifies()).payload, "end"))


def test_a_listener_hears_the_head_of_each_commit_that_made_revisions(postgresql_url: str) -> None:
    store = open_with(postgresql_url)
    with psycopg.connect(postgresql_url, autocommit=True) as listener:
        listener.execute(f"LISTEN {REVISIONS_CHANNEL}".encode())
        courses = [of(create(Course(id=f"c{n}"))) for n in range(3)]
        assert heard(listener, lambda: store.directory.write_group(courses)) == ["3"]
        assert heard(listener, lambda: store.directory.write_group(courses)) == []
        assert heard(listener, lambda: store.directory.write(of(touch(ACTIVE)))) == ["4"]
        batch = [touch(Course(id=f"i{n}")) for n in range(3)]
        imported = partial(store.directory.import_batch, batch, offset=0, origin=Origin(""))
        assert heard(listener, imported) == ["5"]
        unstorable = of(create(Course(id="d")), reason="\x00")
        with pytest.raises(InvalidArgumentError):
            store.directory.write_group([unstorable])
        assert heard(listener, lambda: None) == []
    store.close()
