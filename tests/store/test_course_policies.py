"""The active policies of courses, and writes that are made only while no other one is activated."""

from __future__ import annotations

import pytest

from authz.domain.entities import Course, CourseKey, PolicyActivation, PolicyVersion
from authz.domain.errors import ConflictError
from authz.domain.files import files_digest, files_text
from authz.domain.ids import course_scope
from authz.domain.mutations import Mutation, Operation, WriteRequest
from authz.store import Store
from tests.store.directory import open_with, touch, write


def policy_of(course_id: str, number: int) -> tuple[Mutation, Mutation]:
    scope, files = course_scope(course_id), files_text({"course.csv": f"# {course_id} {number}\n"})
    version = PolicyVersion(scope=scope, number=number, digest=files_digest(files), files=files, format=1)
    activation = PolicyActivation(scope=scope, number=number, digest=version.digest)
    return Mutation(Operation.CREATE, version), touch(activation)


def activate(store: Store, course_id: str, number: int) -> int:
    return write(store, *policy_of(course_id, number))


def found(store: Store, *, since: int = 0, after: str = "", limit: int = 10) -> list[tuple[str, int]]:
    versions, read_at = store.directory.course_policies(since=since, after=after, limit=limit)
    assert read_at == store.directory.head()
    return [(version.scope.id, version.number) for version in versions]


@pytest.fixture
def store(store_url: str) -> Store:
    opened = open_with(store_url, contents_at_once=1)
    write(opened, *(touch(Course(id=each)) for each in ("a", "b", "c")))
    return opened


def test_the_active_ones_are_read_by_course_and_by_when_they_were_activated(store: Store) -> None:
    first = activate(store, "b", 1)
    activate(store, "a", 1)
    last = activate(store, "b", 2)
    assert found(store) == [("a", 1), ("b", 2)]
    assert found(store, limit=1) == [("a", 1)]
    assert found(store, after="a") == [("b", 2)]
    assert found(store, since=first) == [("a", 1), ("b", 2)]
    assert found(store, since=last - 1) == [("b", 2)]
    assert found(store, since=last) == []
    store.close()


def test_what_is_left_of_a_deleted_course_is_not_read(store: Store) -> None:
    for number in (1, 2, 3):
        activate(store, "a", number)
    activate(store, "b", 1)
    write(store, Mutation(Operation.DELETE, CourseKey("a")))
    assert store.directory.removal_progress() is not None, "some is left"
    assert found(store) == [("b", 1)]
    while store.directory.removal_progress() is not None:
        store.directory.remove_contents()
    write(store, touch(Course(id="a")))
    assert found(store) == [("b", 1)]
    assert activate(store, "a", 1)
    assert found(store) == [("a", 1), ("b", 1)]
    store.close()


def test_a_write_that_knows_the_policies_of_courses_is_refused_once_one_is_activated(store: Store) -> None:
    known = activate(store, "a", 1)
    write(store, touch(Course(id="d")))
    mine = WriteRequest(mutations=(touch(Course(id="mine")),), course_policies_at=known)
    assert store.directory.write(mine).revision == known + 2
    later = activate(store, "b", 1)
    with pytest.raises(ConflictError):
        store.directory.write(WriteRequest(mutations=(touch(Course(id="no")),), course_policies_at=known))
    assert store.directory.head().revision == later
    store.close()


def test_one_that_is_activated_in_the_same_group_counts(store: Store) -> None:
    known = store.directory.head().revision
    theirs = WriteRequest(mutations=policy_of("a", 1))
    mine = WriteRequest(mutations=(touch(Course(id="mine")),), course_policies_at=known)
    first, second = store.directory.write_group([mine, theirs])
    assert not isinstance(first, Exception)
    assert not isinstance(second, Exception)
    known = store.directory.head().revision
    mine = WriteRequest(mutations=(touch(Course(id="no")),), course_policies_at=known)
    _, refused = store.directory.write_group([WriteRequest(mutations=policy_of("b", 1)), mine])
    assert isinstance(refused, ConflictError)
    assert store.directory.head().revision == known + 1
    store.close()
