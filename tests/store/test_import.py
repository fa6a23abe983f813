"""Imports: what can be applied is, the rest is reported."""

from __future__ import annotations

from authz.domain.entities import Course, CourseKey, CourseState, Session, SessionKey
from authz.domain.mutations import ImportBatchResult, Mutation
from authz.domain.origin import Origin
from authz.store import Store
from tests.store.directory import changes_of, create, lesson, remove, replay, stored, student, touch


def import_all(store: Store, *mutations: Mutation, offset: int = 0) -> ImportBatchResult:
    """One batch."""
    return store.directory.import_batch(mutations, offset=offset, origin=Origin("test", "", "r"))


def test_faults_are_reported_by_position_and_the_rest_is_applied(store: Store) -> None:
    result = import_all(
        store,
        create(Course(id="c")),
        create(Course(id="c")),
        touch(Course(id="c")),
        create(Course(id="a\x00b")),
        create(student("maya", "none")),
        create(student("maya", "c")),
        offset=100,
    )
    assert (result.written, result.unchanged, result.head.revision) == (2, 1, 1)
    assert [(fault.position, fault.reason) for fault in result.faults] == [
        (101, "ENTITY_EXISTS"),
        (103, "MALFORMED_ID"),
        (104, "REFERENCE_NOT_FOUND"),
    ]
    assert set(stored(store)) == {CourseKey("c"), student("maya", "c").key}


def test_later_mutations_of_one_key_apply_in_order(store: Store) -> None:
    import_all(
        store,
        *(create(entity) for entity in lesson("c", "s")),
        remove(CourseKey("c")),
        touch(Course(id="c", state=CourseState.ACTIVE)),
        create(student("omar", "c")),
    )
    assert set(stored(store)) == {CourseKey("c"), student("omar", "c").key}
    assert replay(changes_of(store, 0, 10)) == stored(store)


def test_what_went_with_its_course_may_come_back_without_one(store: Store) -> None:
    import_all(
        store,
        create(Course(id="c")),
        create(Session(id="s", course_id="c")),
        remove(CourseKey("c")),
        create(Session(id="s")),
    )
    assert set(stored(store)) == {SessionKey("s")}
    assert replay(changes_of(store, 0, 10)) == stored(store)


def test_the_same_import_again_leaves_no_trace(store: Store) -> None:
    batch = [touch(entity) for entity in lesson("c", "s")]
    assert import_all(store, *batch).written == len(batch)
    again = import_all(store, *batch)
    assert (again.written, again.unchanged, again.head.revision) == (0, len(batch), 1)
