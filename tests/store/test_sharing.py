"""A share lasts as long as the membership that made it possible, unless it says that it awaits one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.entities import (
    Course,
    Entity,
    Key,
    Membership,
    MembershipStatus,
    Resource,
    Session,
    SessionKey,
    Share,
    ShareFilter,
)
from authz.domain.errors import AuthzError, ErrorReason, RemovalPendingError
from authz.domain.ids import Scope, Subject, course_scope, session_scope
from authz.domain.mutations import Mutation, Operation, WriteRequest
from authz.domain.origin import Origin
from authz.domain.ports import Page
from authz.store import Store
from tests.databases import create_sqlite
from tests.properties import examples
from tests.store.directory import (
    Clock,
    changes_of,
    create,
    dumped,
    notebook,
    open_with,
    refusal_of,
    remove,
    remove_all_contents,
    share,
    stored,
    student,
    touch,
    user,
    write,
)
from tests.store.log.test_history import BATCHES

MAYA, OMAR = user("maya"), user("omar")
STUDENT, TEACHER = student("maya", "c"), Membership(subject=MAYA, scope=course_scope("c"), role="teacher")
GUEST = Membership(subject=MAYA, scope=session_scope("s"), role="host")
IN_COURSE, IN_SESSION = share("in-c", "maya"), share("in-s", "maya")
COURSE: tuple[Entity, ...] = (
    Course(id="c"),
    Session(id="s", course_id="c"),
    notebook("in-c", course_scope("c")),
    notebook("in-s", session_scope("s")),
    Course(id="d"),
    notebook("in-d", course_scope("d")),
    student("maya", "d"),
    share("in-d", "maya"),
)


def awaiting(given: Share) -> Share:
    """The same share, which needs no membership."""
    return msgspec.structs.replace(given, awaits_membership=True)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """Two courses, of which maya is in `d`, where something is shared with her."""
    opened = open_with(store_url)
    write(opened, *map(create, COURSE))
    yield opened
    opened.close()


def shared(store: Store) -> set[Share]:
    """What is shared in the course `c` and its session."""
    return {entity for entity, _ in stored(store).values() if isinstance(entity, Share)} - {
        share("in-d", "maya")
    }


def test_nothing_is_shared_with_somebody_who_is_not_there(store: Store) -> None:
    for given_share in (IN_COURSE, IN_SESSION):
        assert refusal_of(store, create(given_share)) is ErrorReason.SUBJECT_NOT_A_MEMBER
    write(store, create(GUEST), create(IN_SESSION))
    # A role in a session opens nothing of the rest of its course.
    assert refusal_of(store, create(IN_COURSE)) is ErrorReason.SUBJECT_NOT_A_MEMBER
    write(store, create(STUDENT), create(IN_COURSE))
    assert shared(store) == {IN_COURSE, IN_SESSION}
    with pytest.raises(
        AuthzError, match="user:omar has no membership in course:c or session:s; write that first"
    ):
        write(store, create(share("in-s", "omar")))


def test_a_share_that_awaits_a_membership_is_taken_and_listed_as_such(store: Store) -> None:
    write(store, create(awaiting(IN_COURSE)))
    listed = [
        {each.entity for each in store.directory.read(ShareFilter(awaits_membership=flag), Page(9)).items}
        for flag in (True, False)
    ]
    assert listed == [{awaiting(IN_COURSE)}, {share("in-d", "maya")}]
    assert refusal_of(store, touch(IN_COURSE)) is ErrorReason.SUBJECT_NOT_A_MEMBER
    write(store, create(STUDENT))
    write(store, remove(STUDENT.key))
    assert shared(store) == {awaiting(IN_COURSE)}


def test_a_share_ends_with_the_last_membership_that_opens_it_and_is_logged(store: Store) -> None:
    write(store, *(create(each) for each in (STUDENT, TEACHER, GUEST, IN_COURSE, IN_SESSION)))
    write(store, remove(TEACHER.key))
    assert shared(store) == {IN_COURSE, IN_SESSION}
    head = write(store, remove(STUDENT.key))
    assert shared(store) == {IN_SESSION}
    (change,) = changes_of(store, head - 1, 1)
    assert [mutation.target for mutation in change.mutations] == [STUDENT, IN_COURSE]
    write(store, remove(GUEST.key))
    assert shared(store) == set()
    assert share("in-d", "maya").key in stored(store)


def test_the_membership_in_the_course_opens_what_is_in_its_sessions(store: Store) -> None:
    write(store, *(create(each) for each in (STUDENT, GUEST, IN_SESSION)))
    write(store, remove(GUEST.key))
    assert shared(store) == {IN_SESSION}
    write(store, remove(STUDENT.key))
    assert shared(store) == set()


@pytest.mark.parametrize(
    "inert",
    [
        {"status": MembershipStatus.SUSPENDED},
        {"status": MembershipStatus.COMPLETED},
        {"starts_at": 4_000_000_000_000_000},
        {"ends_at": 4_000_000_000_000_000},
        {"suspended_until": 4_000_000_000_000_000},
    ],
)
def test_a_membership_that_may_give_a_role_again_keeps_the_share(
    store: Store, inert: dict[str, object]
) -> None:
    write(store, create(STUDENT), create(IN_COURSE))
    write(store, touch(msgspec.structs.replace(STUDENT, **inert)))
    assert shared(store) == {IN_COURSE}


def test_a_completed_membership_that_has_ended_keeps_no_share_for_the_next(store: Store) -> None:
    write(store, create(STUDENT), create(IN_COURSE))
    write(store, touch(msgspec.structs.replace(STUDENT, status=MembershipStatus.COMPLETED, ends_at=1)))
    assert refusal_of(store, create(IN_COURSE)) is ErrorReason.SUBJECT_NOT_A_MEMBER
    write(store, touch(STUDENT))
    assert shared(store) == set()


def test_time_alone_ends_no_share_and_the_write_that_ends_a_membership_does(store_url: str) -> None:
    clock = Clock()
    store = open_with(store_url, clock)
    ended = msgspec.structs.replace(STUDENT, ends_at=clock.now + 1)
    write(store, *map(create, COURSE), create(ended), create(GUEST), create(IN_COURSE), create(IN_SESSION))
    clock.now += 1
    write(store, create(Course(id="e")))
    assert shared(store) == {IN_COURSE, IN_SESSION}
    write(store, touch(msgspec.structs.replace(ended, ends_at=clock.now - 1)))
    assert shared(store) == {IN_SESSION}
    assert refusal_of(store, create(IN_COURSE)) is ErrorReason.SUBJECT_NOT_A_MEMBER
    write(store, touch(STUDENT))
    assert shared(store) == {IN_SESSION}
    write(store, create(IN_COURSE))
    store.close()


def test_a_change_of_role_in_one_write_or_batch_keeps_the_share(store: Store) -> None:
    write(store, create(STUDENT), create(IN_COURSE))
    write(store, remove(STUDENT.key), create(TEACHER))
    assert shared(store) == {IN_COURSE}
    batch = [remove(TEACHER.key), create(STUDENT)]
    store.directory.import_batch(batch, offset=0, origin=Origin(""))
    assert shared(store) == {IN_COURSE}


def test_what_is_shared_in_the_transaction_that_ends_the_membership_ends_too(store: Store) -> None:
    member = student("omar", "c")  # with whom nothing else is shared
    write(store, create(member))
    batch = [create(share("in-c", "omar")), remove(member.key)]
    assert not store.directory.import_batch(batch, offset=0, origin=Origin("")).faults
    assert shared(store) == set()
    write(store, create(member))
    writes = [WriteRequest(mutations=(each,)) for each in batch]
    assert not [each for each in store.directory.write_group(writes) if isinstance(each, AuthzError)]
    assert shared(store) == set()


def test_what_ends_does_not_come_back_with_the_next_membership(store: Store) -> None:
    write(store, create(STUDENT), create(IN_COURSE), create(IN_SESSION))
    write(store, remove(STUDENT.key))
    write(store, create(STUDENT))
    assert shared(store) == set()


def test_many_shares_end_in_parts_and_the_member_comes_back_after_them(store_url: str) -> None:
    store = open_with(store_url, contents_at_once=3)
    write(store, *map(create, (*COURSE, STUDENT)))
    many = [notebook(f"n{number}", session_scope("s")) for number in range(10)]
    write(store, *map(create, many), *(create(share(each.id, "maya")) for each in many))
    head = write(store, remove(STUDENT.key), reason="left")
    for membership in (STUDENT, TEACHER, GUEST):
        assert refusal_of(store, create(membership)) is ErrorReason.BEING_REMOVED
    write(store, create(student("omar", "c")))
    assert remove_all_contents(store) == 3
    log = [change for change in changes_of(store, head - 1, 100) if change.reason == "left"]
    assert [len(change.mutations) for change in log] == [4, 3, 3, 1]
    write(store, create(STUDENT))
    assert shared(store) == set()
    assert share("in-d", "maya").key in stored(store)
    store.close()


def test_a_member_does_not_come_back_in_the_transaction_that_ends_many_shares(
    store_url: str,
) -> None:
    store = open_with(store_url, contents_at_once=1)
    write(store, *map(create, (*COURSE, STUDENT, IN_COURSE, IN_SESSION)))
    writes = [WriteRequest(mutations=(each,)) for each in (remove(STUDENT.key), create(STUDENT))]
    outcomes = store.directory.write_group(writes)
    assert [isinstance(each, RemovalPendingError) for each in outcomes] == [False, True]
    remove_all_contents(store)
    assert shared(store) == set()
    store.close()


def test_a_second_membership_may_end_while_many_shares_are_removed(store_url: str) -> None:
    store = open_with(store_url, contents_at_once=1)
    write(store, *map(create, (*COURSE, STUDENT)))
    many = [notebook(f"n{number}", course_scope("c")) for number in range(5)]
    write(store, create(GUEST), create(IN_SESSION), *map(create, many))
    write(store, *(create(share(each.id, "maya")) for each in many))
    write(store, remove(STUDENT.key))
    write(store, remove(GUEST.key))
    remove_all_contents(store)
    assert shared(store) == set()
    store.close()


def is_opened(held: dict[Key, Entity], given_share: Share) -> bool:
    """Whether a membership lets the share give something."""
    resource = held[given_share.resource]
    assert isinstance(resource, Resource)
    scopes: set[Scope] = {resource.scope}
    session = held.get(SessionKey(resource.scope.id))
    if (
        resource.scope == session_scope(resource.scope.id)
        and isinstance(session, Session)
        and session.course_id
    ):
        scopes.add(course_scope(session.course_id))
    memberships = (each for each in held.values() if isinstance(each, Membership))
    return any(
        each.subject == given_share.subject and each.scope in scopes and each.ends_at is None
        for each in memberships
    )


def state(entities: Iterable[Entity]) -> dict[Key, Entity]:
    """Entities by key."""
    return {entity.key: entity for entity in entities}


_SUBJECTS: st.SearchStrategy[Subject] = st.sampled_from([user("a"), user("b")])
_MORE: st.SearchStrategy[Mutation] = st.builds(
    Mutation,
    st.just(Operation.TOUCH),
    st.builds(
        lambda name, subject, awaits: Share(
            resource=share(name, "a").resource,
            subject=subject,
            level=share(name, "a").level,
            awaits_membership=awaits,
        ),
        st.sampled_from(["a", "b"]),
        _SUBJECTS,
        st.booleans(),
    )
    | st.builds(
        lambda subject, course, ends_at: msgspec.structs.replace(student(subject, course), ends_at=ends_at),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from([None, 1]),
    ),
)


@examples(50)
@given(st.lists(st.tuples(BATCHES, st.lists(_MORE, max_size=3)), max_size=10), st.sampled_from([1, 500]))
def test_after_any_history_every_share_is_opened_or_awaits_and_none_is_lost(
    history: list[tuple[list[Mutation], list[Mutation]]], at_once: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = open_with(create_sqlite(Path(folder) / "a.db"), contents_at_once=at_once)
        held: dict[Key, Entity] = {}
        try:
            for batch, more in history:
                mutations = [*more, *batch]
                store.directory.import_batch(mutations, offset=0, origin=Origin(""))
                remove_all_contents(store)
                with store.directory.dump() as dump:
                    before, held = held, state(dumped(dump))
                shares = [each for each in held.values() if isinstance(each, Share)]
                assert all(each.awaits_membership or is_opened(held, each) for each in shares)
                named = {mutation.key for mutation in mutations}
                for lost in before.keys() - held.keys() - named:
                    entity = before[lost]
                    if isinstance(entity, Share) and not named & {entity.resource}:
                        gone = entity.resource not in held
                        assert gone or not (entity.awaits_membership or is_opened(held, entity))
        finally:
            store.close()
