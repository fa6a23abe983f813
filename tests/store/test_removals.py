"""A large deletion: gone at once, removed in bounded parts, and never inherited from."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.entities import (
    Course,
    CourseKey,
    Entity,
    Key,
    Membership,
    Session,
    SessionKey,
    container_of,
)
from authz.domain.erasures import ErasureRequest, RenameRequest
from authz.domain.errors import AuthzError, ErrorReason, RemovalPendingError
from authz.domain.ids import PLATFORM, ResourceRef, course_scope, session_scope
from authz.domain.mutations import ChangeScope, Mutation, Operation, WriteRequest
from authz.domain.origin import Origin
from authz.store import Store
from tests.databases import create_sqlite
from tests.properties import examples
from tests.store.directory import (
    changes_of,
    create,
    dumped,
    notebook,
    open_with,
    refusal_of,
    remove,
    remove_all_contents,
    replay,
    share,
    stored,
    student,
    touch,
    user,
    write,
)
from tests.store.log.test_history import BATCHES

AT_ONCE = 3
INSIDE: tuple[Entity, ...] = (
    Session(id="s", course_id="c"),
    Session(id="t", course_id="c"),
    *(student(f"u{n}", "c") for n in range(5)),
    *(Membership(subject=user(f"u{n}"), scope=session_scope("s"), role="host") for n in range(5)),
    notebook("in-c", course_scope("c")),
    notebook("in-s", session_scope("s")),
    *(share("in-s", f"u{n}") for n in range(5)),
)
ELSEWHERE: tuple[Entity, ...] = (
    Membership(subject=user("u0"), scope=PLATFORM, role="officer"),
    Session(id="alone"),
    Course(id="s"),  # with the id of a session that is removed
)
BESIDE: tuple[Entity, ...] = (
    Course(id="d"),
    Session(id="r", course_id="d"),
    student("u0", "d"),
    notebook("in-d", course_scope("d")),
    share("in-d", "u0"),
    *ELSEWHERE,
)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """A course `c` with far more in it than is removed at once, and another beside it."""
    opened = open_with(store_url, contents_at_once=AT_ONCE)
    write(opened, *map(create, (Course(id="c"), *INSIDE, *BESIDE)))
    yield opened
    opened.close()


def entities(store: Store) -> set[object]:
    """All that the listings show, in pages some of which have nothing but what is being removed."""
    return {entity for entity, _ in stored(store, page_size=2).values()}


def require_log(store: Store) -> None:
    """The tables hold what the log says, also while a removal goes on."""
    with store.directory.dump() as dump:
        assert {entity.key: entity for entity in dumped(dump)} == {
            key: entity for key, (entity, _) in replay(changes_of(store, 0, 1000)).items()
        }


def test_a_large_course_is_gone_at_once_and_its_contents_go_in_bounded_revisions(store: Store) -> None:
    assert write(store, remove(CourseKey("c")), reason="over") == 2
    assert entities(store) == set(BESIDE)
    require_log(store)
    while store.directory.removal_progress() is not None:
        store.directory.remove_contents()
        assert entities(store) == set(BESIDE)
        require_log(store)
    log = changes_of(store, 1, 100)
    assert len(log) > len(INSIDE) // AT_ONCE
    assert all(1 <= len(change.mutations) <= AT_ONCE + 1 for change in log)
    assert {change.reason for change in log} == {"over"}
    assert {change.actor for change in log} == {"test"}
    removed = [mutation for change in log for mutation in change.mutations]
    assert {mutation.operation for mutation in removed} == {Operation.DELETE}
    assert sorted(str(mutation.key) for mutation in removed) == sorted(
        str(entity.key) for entity in (Course(id="c"), *INSIDE)
    )
    with store.directory.dump() as dump:
        assert set(dumped(dump)) == set(BESIDE)


def test_every_removal_is_logged_with_the_course_and_the_session_that_it_was_in(store: Store) -> None:
    write(store, remove(SessionKey("s")))
    write(store, remove(CourseKey("c")))
    remove_all_contents(store)
    places = {
        mutation.key: place
        for change in changes_of(store, 1, 100)
        for mutation, place in zip(change.mutations, change.scopes, strict=True)
    }
    in_session = {
        entity.key
        for entity in INSIDE
        if str(getattr(entity, "scope", "")) == "session:s"
        or str(getattr(entity, "resource", "")) == "notebook:in-s"
    }
    assert len(in_session) == 11
    assert {places[key] for key in in_session | {SessionKey("s")}} == {ChangeScope("c", "s")}
    assert places[SessionKey("t")] == ChangeScope("c", "t")
    others = {entity.key for entity in INSIDE} - in_session - {SessionKey("s"), SessionKey("t")}
    assert {places[key] for key in others | {CourseKey("c")}} == {ChangeScope("c", None)}


def erase(store: Store) -> None:
    store.personal_data.begin_erasure(
        ErasureRequest(subject=user("u4"), origin=Origin(reason="wish"), orphans=True)
    )
    while store.personal_data.erasure_progress() is not None and "u4" in repr(dump_of(store)):
        store.personal_data.advance_erasure()


def dump_of(store: Store) -> list[Entity]:
    with store.directory.dump() as dump:
        return dumped(dump)


OF_ONE_SUBJECT: dict[str, Callable[[Store], object]] = {
    "erased": erase,
    "renamed": lambda store: store.personal_data.rename(
        RenameRequest(subject=user("u4"), to=user("v4"), origin=Origin(reason="merged"))
    ),
    "removed": lambda store: store.directory.remove_member(user("u4"), session_scope("s"), origin=Origin("")),
}


@pytest.mark.parametrize("root", [SessionKey("s"), ResourceRef("notebook", "in-s")], ids=str)
@pytest.mark.parametrize("change", OF_ONE_SUBJECT.values(), ids=OF_ONE_SUBJECT)
def test_what_happens_to_the_rest_meanwhile_is_logged_with_its_scope(
    store: Store, root: Key, change: Callable[[Store], object]
) -> None:
    head = write(store, remove(root))
    rest = [each for each in dump_of(store) if str(getattr(each, "resource", "")) == "notebook:in-s"]
    assert share("in-s", "u4") in rest
    change(store)
    places = [
        (mutation.key, place)
        for each in changes_of(store, head, 100)
        for mutation, place in zip(each.mutations, each.scopes, strict=True)
    ]
    in_session = [
        place
        for key, place in places
        if str(getattr(key, "scope", "")) == "session:s"
        or str(getattr(key, "resource", "")) == "notebook:in-s"
    ]
    assert in_session
    assert {*in_session} == {ChangeScope("c", "s")}


REFUSED: list[tuple[Mutation, ErrorReason]] = [
    (touch(student("u0", "c")), ErrorReason.REFERENCE_NOT_FOUND),
    (create(student("new", "c")), ErrorReason.REFERENCE_NOT_FOUND),
    (create(Session(id="new", course_id="c")), ErrorReason.REFERENCE_NOT_FOUND),
    (touch(Session(id="s", course_id="c")), ErrorReason.REFERENCE_NOT_FOUND),
    (create(notebook("new", session_scope("s"))), ErrorReason.REFERENCE_NOT_FOUND),
    (touch(notebook("in-s", session_scope("s"))), ErrorReason.REFERENCE_NOT_FOUND),
    (touch(share("in-s", "u0")), ErrorReason.REFERENCE_NOT_FOUND),
    (create(share("in-c", "new")), ErrorReason.REFERENCE_NOT_FOUND),
    (touch(Course(id="c")), ErrorReason.BEING_REMOVED),
    (create(Session(id="s")), ErrorReason.BEING_REMOVED),
    (create(notebook("in-c", course_scope("d"))), ErrorReason.BEING_REMOVED),
]


def test_nothing_is_written_into_a_course_or_over_a_record_that_is_being_removed(store: Store) -> None:
    write(store, remove(CourseKey("c")))
    for mutation, expected in REFUSED:
        assert refusal_of(store, mutation) is expected, mutation
        assert refusal_of(store, create(Course(id="new")), mutation) is expected
        result = store.directory.import_batch([mutation], offset=7, origin=Origin(""))
        assert [(fault.position, fault.reason) for fault in result.faults] == [(7, expected.value)]
        assert entities(store) == set(BESIDE)


def test_a_deletion_of_what_is_being_removed_changes_nothing(store: Store) -> None:
    head = write(store, remove(CourseKey("c")))
    deletions = [remove(CourseKey("c")), *(remove(entity.key) for entity in INSIDE)]
    assert write(store, *deletions) == head
    result = store.directory.import_batch(deletions, offset=0, origin=Origin(""))
    assert (result.written, result.unchanged, result.head.revision) == (0, len(deletions), head)


def test_a_course_made_anew_inherits_nothing(store: Store) -> None:
    write(store, remove(CourseKey("c")))
    with pytest.raises(RemovalPendingError, match="course:c is being removed; try again"):
        write(store, create(Course(id="c")))
    remove_all_contents(store)
    anew: list[Entity] = [
        Course(id="c"),
        Session(id="s", course_id="c"),
        notebook("in-s", session_scope("s")),
    ]
    write(store, *map(create, anew))
    assert entities(store) == {*BESIDE, *anew}
    assert remove_all_contents(store) == 0
    assert entities(store) == {*BESIDE, *anew}


def test_a_resource_with_many_shares_goes_like_a_course(store: Store) -> None:
    write(store, remove(ResourceRef("notebook", "in-s")))
    assert not {
        entity for entity in entities(store) if str(getattr(entity, "resource", "")) == "notebook:in-s"
    }
    assert refusal_of(store, create(share("in-s", "u0"))) is ErrorReason.REFERENCE_NOT_FOUND
    assert refusal_of(store, create(notebook("in-s", course_scope("d")))) is ErrorReason.BEING_REMOVED
    assert remove_all_contents(store) == 1
    write(store, create(notebook("in-s", course_scope("d"))))
    require_log(store)


def test_another_process_continues_a_removal_where_the_first_one_stopped(
    store: Store, store_url: str
) -> None:
    write(store, remove(CourseKey("c")))
    store.directory.remove_contents()
    before = store.directory.removal_progress()
    other = open_with(store_url, contents_at_once=AT_ONCE)
    assert other.directory.removal_progress() == before
    other.directory.remove_contents()
    assert store.directory.removal_progress() != before
    remove_all_contents(other)
    other.close()
    assert entities(store) == set(BESIDE)
    require_log(store)


def test_one_transaction_removes_a_bounded_number_of_records_however_many_deletions_it_has(
    store: Store,
) -> None:
    courses: list[Entity] = [Course(id=f"x{n}") for n in range(4)]
    members: list[Entity] = [student(f"u{n}", course.key.id) for course in courses for n in range(2)]  # type: ignore[union-attr]  # a course
    head = write(store, *map(create, courses + members))
    deletions = [remove(course.key) for course in courses]
    result = store.directory.import_batch(deletions, offset=0, origin=Origin(""))
    assert (result.written, result.unchanged) == (len(deletions), 0)
    (change,) = changes_of(store, head, 10)
    assert len(change.mutations) == len(deletions) + AT_ONCE
    assert entities(store) == {Course(id="c"), *INSIDE, *BESIDE}
    remove_all_contents(store)
    assert all(len(change.mutations) <= AT_ONCE for change in changes_of(store, head + 1, 10))
    require_log(store)


def test_each_write_of_a_group_may_leave_a_removal(store: Store) -> None:
    many = [notebook(f"x{n}", course_scope("d")) for n in range(AT_ONCE + 1)]
    write(store, *map(create, many))
    deletions = [WriteRequest(mutations=(remove(CourseKey(id_)),)) for id_ in ("c", "d")]
    created_again = [WriteRequest(mutations=(create(Course(id=id_)),)) for id_ in ("e", "c")]
    outcomes = store.directory.write_group([*deletions, *created_again])
    assert [isinstance(each, RemovalPendingError) for each in outcomes] == [False, False, False, True]
    assert entities(store) == {Course(id="e"), *ELSEWHERE}
    remove_all_contents(store)
    assert {*dump_of(store)} == {Course(id="e"), *ELSEWHERE}


def test_a_deletion_that_fails_with_its_write_leaves_no_removal(store: Store) -> None:
    assert refusal_of(store, remove(CourseKey("c")), create(student("u0", "none"))) is (
        ErrorReason.REFERENCE_NOT_FOUND
    )
    assert store.directory.removal_progress() is None
    before = remove(student("u0", "d").key)  # stored before the contents of `c` are read
    failing = WriteRequest(mutations=(before, remove(CourseKey("c")), create(student("u0", "none"))))
    outcomes = store.directory.write_group([failing, WriteRequest(mutations=(touch(student("u0", "c")),))])
    assert isinstance(outcomes[0], AuthzError)
    assert store.directory.removal_progress() is None
    assert entities(store) == {Course(id="c"), *INSIDE, *BESIDE}
    assert refusal_of(store, remove(CourseKey("c")), create(Session(id="s"))) is ErrorReason.BEING_REMOVED
    assert entities(store) == {Course(id="c"), *INSIDE, *BESIDE}


def visible(held: dict[Key, Entity]) -> set[Entity]:
    """Those whose container is there, and the container of that."""

    def is_there(entity: Entity) -> bool:
        key = container_of(entity)
        return key is None or (key in held and is_there(held[key]))

    return {entity for entity in held.values() if is_there(entity)}


@examples(25)
@given(st.lists(st.tuples(BATCHES, st.booleans()), max_size=12), st.integers(0, 2))
def test_nobody_can_tell_a_large_deletion_from_one_that_is_complete_at_once(
    history: list[tuple[list[Mutation], bool]], at_once: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        parts = open_with(create_sqlite(Path(folder) / "a.db"), contents_at_once=at_once)
        whole = open_with(create_sqlite(Path(folder) / "b.db"))
        try:
            for batch, removes in history:
                result = parts.directory.import_batch(batch, offset=0, origin=Origin(""))
                faults = {fault.position: fault.reason for fault in result.faults}
                # What had to wait is tried again by its caller, when and if it likes.
                for position, mutation in enumerate(batch):
                    if faults.get(position) != ErrorReason.BEING_REMOVED:
                        alone = whole.directory.import_batch([mutation], offset=position, origin=Origin(""))
                        assert [fault.reason for fault in alone.faults] == [
                            *filter(None, [faults.get(position)])
                        ]
                if removes and at_once:
                    parts.directory.remove_contents()
                assert entities(parts) == entities(whole)
                with parts.directory.dump() as dump:
                    assert entities(parts) == visible({entity.key: entity for entity in dumped(dump)})
                require_log(parts)
            if at_once:
                remove_all_contents(parts)
                with parts.directory.dump() as dump:
                    assert set(dumped(dump)) == entities(whole)
        finally:
            parts.close()
            whole.close()
