"""What every store owes a writer, on each database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from authz.domain.entities import (
    KINDS,
    Course,
    CourseKey,
    CourseState,
    MembershipFilter,
    Resource,
    Session,
    Visibility,
)
from authz.domain.errors import AuthzError, ErrorReason, FailedPreconditionError
from authz.domain.ids import PLATFORM, ResourceRef, course_scope, session_scope
from authz.domain.instants import US_PER_S
from authz.domain.mutations import Expectation, Mutation, Operation, Precondition, WriteRequest
from authz.domain.origin import Origin
from authz.domain.ports import Page
from authz.domain.tokens import ConsistencyToken
from authz.store import Store
from tests.store.directory import (
    Clock,
    changes_of,
    create,
    dumped,
    lesson,
    notebook,
    remove,
    replay,
    share,
    stored,
    student,
    touch,
    write,
)


def refused(store: Store, *mutations: Mutation) -> ErrorReason:
    """The reason for which a write is refused; nothing may have changed."""
    before, head = stored(store), store.directory.head()
    with pytest.raises(AuthzError) as caught:
        write(store, *mutations)
    assert (stored(store), store.directory.head()) == (before, head)
    return caught.value.reason


def test_the_order_within_a_write_does_not_matter(store: Store) -> None:
    assert write(store, *(create(entity) for entity in reversed(lesson("c", "s")))) == 1
    assert stored(store) == {entity.key: (entity, 1) for entity in lesson("c", "s")}


def test_a_write_that_changes_nothing_takes_no_revision(store: Store) -> None:
    write(store, create(Course(id="c")))
    assert write(store, touch(Course(id="c")), remove(CourseKey("none"))) == 1
    assert len(changes_of(store, 0, 10)) == 1


def test_a_touch_replaces_and_gives_a_new_revision(store: Store) -> None:
    write(store, create(Course(id="c")))
    after = Course(id="c", state=CourseState.ACTIVE)
    assert write(store, touch(after)) == 2
    assert stored(store) == {after.key: (after, 2)}


def test_deleting_a_course_deletes_and_logs_all_that_is_in_it(store: Store) -> None:
    write(store, *(create(entity) for entity in (*lesson("c", "s"), *lesson("d", "t"))))
    write(store, remove(CourseKey("c")))
    (change,) = changes_of(store, 1, 10)
    assert {m.target for m in change.mutations} == set(lesson("c", "s"))
    assert all(m.operation is Operation.DELETE for m in change.mutations)
    assert stored(store) == {entity.key: (entity, 1) for entity in lesson("d", "t")}
    assert replay(changes_of(store, 0, 10)) == stored(store)


FAULTY: list[tuple[ErrorReason, tuple[Mutation, ...]]] = [
    (ErrorReason.MISSING_FIELD, ()),
    (ErrorReason.TOO_MANY_ITEMS, tuple(create(Course(id=f"x{n}")) for n in range(1001))),
    (ErrorReason.DUPLICATE_MUTATION, (create(Course(id="x")), remove(CourseKey("x")))),
    (ErrorReason.ENTITY_EXISTS, (create(Course(id="y")), create(Course(id="c")))),
    (ErrorReason.REFERENCE_NOT_FOUND, (create(Course(id="y")), create(student("maya", "none")))),
    (ErrorReason.REFERENCE_NOT_FOUND, (create(Session(id="x", course_id="none")),)),
    (ErrorReason.REFERENCE_NOT_FOUND, (create(share("none", "maya")),)),
    (ErrorReason.REFERENCE_NOT_FOUND, (touch(student("new", "c")), remove(CourseKey("c")))),
    (ErrorReason.REFERENCE_NOT_FOUND, (touch(share("s-nb", "new")), remove(CourseKey("c")))),
    (ErrorReason.SCOPE_IMMUTABLE, (touch(Session(id="s", course_id=None)),)),
    (ErrorReason.SCOPE_IMMUTABLE, (touch(notebook("c-nb", session_scope("s"))),)),
    (ErrorReason.UNKNOWN_TYPE, (create(Resource(type="course", id="x", scope=course_scope("c"))),)),
    (ErrorReason.UNKNOWN_TYPE, (create(Resource(type="quiz", id="x", scope=course_scope("c"))),)),
    (ErrorReason.MALFORMED_FIELD, (create(Resource(type="message", id="x", scope=PLATFORM)),)),
    (ErrorReason.MALFORMED_FIELD, (create(Session(id="x", starts_at=2, ends_at=2)),)),
    (ErrorReason.MALFORMED_FIELD, (create(Course(id="x", edit_window_us=367 * 86_400 * US_PER_S)),)),
    (ErrorReason.MALFORMED_ID, (create(Course(id="a\x00b")),)),
    (ErrorReason.MALFORMED_ID, (remove(CourseKey("a\x00b")),)),
]


def test_a_faulty_write_changes_nothing(store: Store) -> None:
    write(store, *(create(entity) for entity in lesson("c", "s")))
    for reason, mutations in FAULTY:
        assert refused(store, *mutations) is reason, mutations


def test_course_visibility_needs_a_course_around_the_session(store: Store) -> None:
    write(store, create(Session(id="alone")))
    wide = Resource(type="notebook", id="n", scope=session_scope("alone"), visibility=Visibility.COURSE)
    assert refused(store, create(wide)) is ErrorReason.MALFORMED_FIELD


@pytest.mark.parametrize(
    ("precondition", "holds"),
    [
        (Precondition(CourseKey("c"), Expectation.EXISTS), True),
        (Precondition(CourseKey("none"), Expectation.EXISTS), False),
        (Precondition(CourseKey("none"), Expectation.NOT_EXISTS), True),
        (Precondition(CourseKey("c"), Expectation.NOT_EXISTS), False),
        (Precondition(CourseKey("c"), Expectation.AT_REVISION, 1), True),
        (Precondition(CourseKey("c"), Expectation.AT_REVISION, 2), False),
        (Precondition(ResourceRef("notebook", "none"), Expectation.AT_REVISION, 0), False),
    ],
)
def test_preconditions_judge_the_state_before_the_write(
    store: Store, precondition: Precondition, holds: bool
) -> None:
    write(store, create(Course(id="c")))
    request = WriteRequest(mutations=(create(Course(id="d")),), preconditions=(precondition,))
    if holds:
        assert store.directory.write(request).revision == 2
        return
    with pytest.raises(FailedPreconditionError) as caught:
        store.directory.write(request)
    assert caught.value.reason is ErrorReason.PRECONDITION_FAILED
    assert store.directory.head().revision == 1


def test_a_repeated_idempotency_key_gives_the_first_revision(store: Store) -> None:
    first = write(store, create(Course(id="c")), idempotency_key="k")
    write(store, create(Course(id="d")))
    assert write(store, create(Course(id="c")), idempotency_key="k") == first
    with pytest.raises(FailedPreconditionError) as caught:
        write(store, create(Course(id="e")), idempotency_key="k")
    assert caught.value.reason is ErrorReason.IDEMPOTENCY_KEY_REUSED


def test_an_idempotency_key_belongs_to_the_caller_that_sent_it(store: Store) -> None:
    def key_of(actor: str, *mutations: Mutation) -> WriteRequest:
        return WriteRequest(mutations=mutations, idempotency_key="k", origin=Origin(actor))

    course, other = create(Course(id="c")), create(Course(id="d"))
    first, second = store.directory.write_group([key_of("service:one", course), key_of("service:two", other)])
    assert isinstance(first, ConsistencyToken)
    assert isinstance(second, ConsistencyToken)
    assert (first.revision, second.revision) == (1, 2)
    assert store.directory.write(key_of("service:one", course)) == first
    assert store.directory.write(key_of("service:two", other)) == second
    with pytest.raises(FailedPreconditionError):
        store.directory.write(key_of("service:one", other))


def test_concurrent_writes_take_gapless_revisions(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda n: write(store, create(Course(id=f"c{n}"))), range(60)))
    assert sorted(given) == list(range(1, 61))
    log = changes_of(store, 0, 100)
    assert [change.revision for change in log] == list(range(1, 61))
    assert replay(log) == stored(store)


def test_of_concurrent_creates_one_wins(store: Store) -> None:
    def attempt(_: int) -> bool:
        try:
            write(store, create(Course(id="c")))
        except AuthzError as error:
            assert error.reason is ErrorReason.ENTITY_EXISTS
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(attempt, range(12))) == 1


def test_a_dump_does_not_move(store: Store) -> None:
    write(store, *(create(entity) for entity in lesson("c", "s")))
    with store.directory.dump() as dump:
        write(store, remove(CourseKey("c")))
        assert dump.state.revision == 1
        assert set(dumped(dump)) == set(lesson("c", "s"))
    with store.directory.dump() as dump:
        assert dump.state.revision == 2
        assert not dumped(dump)


def test_a_dump_has_every_order_that_a_replica_is_built_in(store: Store) -> None:
    many = [entity for number in (3, 1, 2) for entity in lesson(f"c{number}", f"s{number}")]
    alone = Session(id="alone")
    write(store, *(create(entity) for entity in (*many, alone, share("s1-nb", "a", awaits=True))))
    with store.directory.dump() as dump:
        keys = [(str(m.subject), str(m.scope)) for m in dump.entities(KINDS["membership"], by="subject")]
        assert keys == sorted(keys)
        assert len(keys) == 6
        found = {
            asked: list(dump.values(KINDS[asked[0]], asked[1:]))
            for asked in (
                ("session", "course_id", "id"),
                ("membership", "scope", "subject"),
                ("resource", "scope", "type", "id"),
                ("resource", "owner", "type", "id"),
                ("share", "subject", "resource"),
            )
        }
    sessions, members, in_scopes, of_owners, with_subjects = found.values()
    assert all(values == sorted(values) for values in found.values())
    assert sessions == [(f"c{n}", f"s{n}") for n in (1, 2, 3)]
    assert {(str(subject), str(scope)) for scope, subject in members} == set(keys)
    resources = [entity for entity in many if isinstance(entity, Resource)]
    assert set(in_scopes) == {(r.scope, r.type, r.id) for r in resources}
    assert set(of_owners) == {(r.owner, r.type, r.id) for r in resources}
    assert len(with_subjects) == 4


def test_the_log_says_who_and_why(store: Store, clock: Clock) -> None:
    write(store, create(Course(id="c")), reason="term starts")
    (change,) = changes_of(store, 0, 1)
    assert (change.actor, change.reason, change.committed_at) == ("test", "term starts", clock.now)
    assert store.directory.read(MembershipFilter(), Page(1)).items == ()
