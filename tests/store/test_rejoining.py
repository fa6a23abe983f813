"""Who is enrolled again does not find the old shares."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from authz.domain.entities import Course, Share
from authz.domain.errors import ErrorReason
from authz.domain.ids import course_scope
from authz.domain.mutations import Mutation, update
from authz.domain.origin import Origin
from authz.store import Store
from tests.store.directory import (
    Clock,
    changes_of,
    counted,
    create,
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
    write,
)
from tests.store.test_sharing import COURSE, GUEST, IN_COURSE, IN_SESSION, STUDENT, TEACHER, awaiting, shared

LAPSED = msgspec.structs.replace(STUDENT, ends_at=Clock().now + 1)
LAPSED_GUEST = msgspec.structs.replace(GUEST, ends_at=LAPSED.ends_at)


@pytest.fixture
def lapsed_store(store_url: str) -> Iterator[Store]:
    """The course, in which every membership of maya has ended by its date."""
    clock = Clock()
    opened = open_with(store_url, clock, contents_at_once=2)
    write(opened, *map(create, (*COURSE, LAPSED, LAPSED_GUEST, IN_COURSE, IN_SESSION)))
    clock.now += 1
    yield opened
    opened.close()


REJOINING = {
    "extended": (touch(STUDENT),),
    "updated": (update(STUDENT.key, ends_at=None),),
    "another role": (create(TEACHER),),
    "replaced": (remove(STUDENT.key), create(TEACHER)),
    "only in a session": (touch(GUEST),),
}


@pytest.mark.parametrize("rejoining", REJOINING.values(), ids=REJOINING)
@pytest.mark.parametrize("imports", [False, True], ids=["write", "import"])
def test_who_is_enrolled_again_does_not_find_the_old_shares(
    lapsed_store: Store, rejoining: tuple[Mutation, ...], imports: bool
) -> None:
    if imports:
        lapsed_store.directory.import_batch(rejoining, offset=0, origin=Origin(""))
    else:
        write(lapsed_store, *rejoining)
    assert shared(lapsed_store) == set()
    (change,) = changes_of(lapsed_store, 1, 2)
    assert replay(changes_of(lapsed_store, 0, 2)) == stored(lapsed_store)
    ended = {place for place, each in enumerate(change.mutations) if isinstance(each.target, Share)}
    assert len(ended) == 2
    assert max(ended) < len(change.mutations) - 1


@pytest.mark.parametrize("rejoining", [touch(GUEST), create(STUDENT)], ids=["in it", "in its course"])
def test_who_was_in_a_session_alone_does_not_find_the_old_shares_of_it(
    store_url: str, rejoining: Mutation
) -> None:
    clock = Clock()
    store = open_with(store_url, clock)
    write(store, *map(create, (*COURSE, LAPSED_GUEST, IN_SESSION)))
    clock.now += 1
    write(store, rejoining)
    assert shared(store) == set()
    store.close()


def test_a_refused_write_ends_no_share(lapsed_store: Store) -> None:
    refused = (touch(STUDENT), create(student("omar", "none")))
    assert refusal_of(lapsed_store, *refused) is ErrorReason.REFERENCE_NOT_FOUND
    assert shared(lapsed_store) == {IN_COURSE, IN_SESSION}


def test_what_is_shared_again_with_the_new_membership_stays(lapsed_store: Store) -> None:
    write(lapsed_store, touch(STUDENT), create(IN_COURSE), touch(awaiting(IN_SESSION)))
    assert shared(lapsed_store) == {IN_COURSE, awaiting(IN_SESSION)}
    assert replay(changes_of(lapsed_store, 0, 3)) == stored(lapsed_store)


def test_an_import_keeps_what_it_shares_before_the_membership_comes_back(lapsed_store: Store) -> None:
    batch = [touch(awaiting(IN_SESSION)), touch(STUDENT)]
    assert not lapsed_store.directory.import_batch(batch, offset=0, origin=Origin("")).faults
    assert shared(lapsed_store) == {awaiting(IN_SESSION)}


def test_a_membership_that_goes_on_keeps_what_it_opens(store_url: str) -> None:
    clock = Clock()
    store = open_with(store_url, clock)
    write(store, *map(create, (*COURSE, LAPSED, GUEST, IN_COURSE, IN_SESSION)))
    clock.now += 2
    write(store, create(TEACHER))
    assert shared(store) == {IN_SESSION}
    store.close()


def test_many_old_shares_end_before_the_member_comes_back(store_url: str) -> None:
    clock = Clock()
    store = open_with(store_url, clock, contents_at_once=1)
    write(store, *map(create, (*COURSE, LAPSED, IN_COURSE, IN_SESSION)))
    clock.now += 2
    for rejoining in (touch(STUDENT), create(TEACHER)):
        assert refusal_of(store, rejoining) is ErrorReason.BEING_REMOVED
    assert store.directory.head().revision == 1
    remove_all_contents(store)
    write(store, touch(STUDENT))
    assert shared(store) == set()
    store.close()


def test_a_commit_by_a_clock_that_is_ahead_ends_no_share_early(store_url: str) -> None:
    clock, ahead = Clock(), Clock()
    ahead.now += 2_000_000
    store, other = open_with(store_url, clock), open_with(store_url, ahead)
    member = msgspec.structs.replace(STUDENT, ends_at=clock.now + 1_000_000)
    write(store, *map(create, (*COURSE, member, IN_COURSE)))
    write(other, create(Course(id="e")))
    write(store, touch(msgspec.structs.replace(member, source="roster")))
    write(store, create(IN_SESSION), touch(STUDENT))
    assert shared(store) == {IN_COURSE, IN_SESSION}
    store.close()
    other.close()


def test_an_import_of_new_members_reads_their_old_shares_together(sqlite_url: str) -> None:
    store = open_with(sqlite_url)
    members = [student(f"u{n}", "c") for n in range(100)]
    write(store, create(Course(id="c")), create(Course(id="e")), create(notebook("n", course_scope("c"))))
    write(store, *map(create, members), *(create(share("n", each.subject.id)) for each in members))
    counts = []
    for number in (1, 100):
        with counted(store) as statements:
            rejoining = [touch(student(each.subject.id, "e")) for each in members[:number]]
            store.directory.import_batch(rejoining, offset=0, origin=Origin(""))
        counts.append(len(statements))
    assert counts[0] == counts[1]
    store.close()


def test_a_member_whose_end_is_written_comes_back_after_many_shares_have_ended(store_url: str) -> None:
    store = open_with(store_url, contents_at_once=1)
    write(store, *map(create, COURSE), create(STUDENT), create(IN_COURSE), create(IN_SESSION))
    write(store, touch(msgspec.structs.replace(STUDENT, ends_at=1)))
    assert refusal_of(store, touch(STUDENT)) is ErrorReason.BEING_REMOVED
    remove_all_contents(store)
    write(store, touch(STUDENT))
    assert shared(store) == set()
    store.close()
