"""The change log: where each entity is, and stretches of any size that never hide a gap."""

from __future__ import annotations

import msgspec
import pytest

from authz.domain.entities import Course, CourseKey, Entity, Membership, Session, SessionKey
from authz.domain.errors import ErrorReason, OutOfRangeError
from authz.domain.ids import PLATFORM, ResourceRef, session_scope
from authz.domain.mutations import Change, ChangeScope, Mutation
from authz.domain.origin import Origin
from authz.domain.tokens import ConsistencyToken
from authz.domain.vocabulary import RoleDeclaration, Vocabulary
from authz.store import Store, open_store, tables
from authz.store.database.engine import write_transaction
from authz.store.log import reader
from tests.store.directory import (
    VOCABULARY,
    Clock,
    changes_of,
    counted,
    create,
    lesson,
    notebook,
    remove,
    share,
    student,
    touch,
    user,
    write,
)

IN_COURSE, IN_SESSION, ALONE = ChangeScope("c"), ChangeScope("c", "s"), ChangeScope(None, "alone")
EVERYTHING = (
    *lesson("c", "s"),
    Session(id="alone"),
    Membership(subject=user("omar"), scope=session_scope("alone"), role="host"),
    notebook("alone-nb", session_scope("alone")),
    share("alone-nb", "maya", awaits=True),
    share("c-nb", "omar", awaits=True),
)


def expected_place(entity: Entity) -> ChangeScope:
    """By the names that the entities above were given."""
    text = str(entity.key)
    if "alone" in text:
        return ALONE
    return IN_SESSION if "s-nb" in text or "session:s" in text else IN_COURSE


def places(store: Store) -> list[tuple[Mutation, ChangeScope]]:
    """The last change."""
    change = changes_of(store, 0, 1000)[-1]
    return list(zip(change.mutations, change.scopes, strict=True))


def require_places(logged: list[tuple[Mutation, ChangeScope]], count: int) -> None:
    assert len(logged) == count
    for mutation, place in logged:
        assert isinstance(mutation.target, Entity)
        assert place == expected_place(mutation.target), mutation


def test_each_entity_is_logged_with_its_place_written_together_or_one_by_one(store: Store) -> None:
    write(store, *(create(entity) for entity in reversed(EVERYTHING)))
    require_places(places(store), len(EVERYTHING))
    for entity in reversed(EVERYTHING):
        if not isinstance(entity, Course | Session):
            write(store, remove(entity.key))
            assert expected_place(entity) in [place for _, place in places(store)]
    for entity in EVERYTHING:
        if not isinstance(entity, Course | Session):
            write(store, create(entity))
            require_places(places(store), 1)


@pytest.mark.parametrize(
    ("key", "count"),
    [
        (CourseKey("c"), 8),
        (SessionKey("s"), 4),
        (SessionKey("alone"), 4),
        (ResourceRef("notebook", "s-nb"), 2),
        (ResourceRef("notebook", "alone-nb"), 2),
    ],
)
def test_what_goes_along_is_logged_with_its_place(
    store: Store, key: CourseKey | SessionKey | ResourceRef, count: int
) -> None:
    write(store, *(create(entity) for entity in EVERYTHING))
    write(store, remove(key))
    require_places(places(store), count)


def test_an_import_that_deletes_and_writes_again_knows_the_places(store: Store) -> None:
    write(store, *(create(entity) for entity in EVERYTHING))
    batch = [remove(CourseKey("c")), *(create(entity) for entity in lesson("c", "s"))]
    done = store.directory.import_batch(batch, offset=0, origin=Origin(""))
    assert done.faults == ()
    require_places(places(store), 15)


def test_a_membership_of_the_platform_is_in_no_place(store_url: str) -> None:
    officer = RoleDeclaration("officer", PLATFORM.kind, 50, True, "")
    vocabulary = Vocabulary(roles={"officer": officer}, types=VOCABULARY.types)
    store = open_store(store_url, vocabularies=lambda *_: vocabulary, clock=Clock())
    write(store, create(Membership(subject=user("maya"), scope=PLATFORM, role="officer")))
    ((_, place),) = places(store)
    store.close()
    assert place == ChangeScope()


@pytest.mark.parametrize("operation", ["share", "unshare", "leave"])
def test_places_are_found_without_a_query_for_each_mutation(store: Store, operation: str) -> None:
    names = [f"n{number}" for number in range(60)]
    write(store, create(Course(id="c")))
    write(store, *(create(Session(id=name, course_id="c")) for name in names))
    write(store, *(create(notebook(name, session_scope(name))) for name in names))
    shares: list[Entity] = [share(name, "maya", awaits=operation != "share") for name in names]
    guests: list[Entity] = [
        Membership(subject=user("maya"), scope=session_scope(name), role="host") for name in names
    ]
    if operation == "share":
        write(store, create(student("maya", "c")))
    else:
        write(store, *(create(entity) for entity in (*shares, *guests)))
    mutations: list[Mutation] = {
        "share": [create(each) for each in shares],
        "unshare": [remove(each.key) for each in shares],
        "leave": [remove(each.key) for each in guests],
    }[operation]
    with counted(store) as statements:
        write(store, *mutations)
    assert len(statements) < len(names) / 2
    assert [place for _, place in places(store)] == [ChangeScope("c", name) for name in names]


def read_all(store: Store, limit: int) -> list[tuple[int, Mutation, ChangeScope]]:
    """The whole log in stretches, and that each says rightly whether its revision goes on."""
    database_id = store.directory.head().database_id
    after = skip = 0
    read = []
    while True:
        stretch = store.directory.read_log(ConsistencyToken(database_id, after), skip, limit)
        assert stretch.head == store.directory.head().revision
        assert sum(len(part.change.mutations) for part in stretch.parts) <= limit
        for part in stretch.parts:
            change = part.change
            assert change.revision == after + 1
            pairs = zip(change.mutations, change.scopes, strict=True)
            read += [(change.revision, mutation, place) for mutation, place in pairs]
            after, skip = (after + 1, 0) if part.is_last else (after, skip + len(change.mutations))
        if not stretch.parts:
            assert (after, skip) == (stretch.head, 0)
            return read


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 12, 1000])
def test_stretches_of_any_size_hold_the_whole_log(store: Store, limit: int) -> None:
    write(store, create(Course(id="first")))
    write(store, *(create(entity) for entity in EVERYTHING))
    write(store, touch(student("omar", "c")))
    write(store, remove(CourseKey("c")))
    whole = [
        (change.revision, mutation, place)
        for change in changes_of(store, 0, 100)
        for mutation, place in zip(change.mutations, change.scopes, strict=True)
    ]
    assert read_all(store, limit) == whole


@pytest.mark.parametrize("most", [1, 2, 3, 4, 13, 1000])
def test_who_follows_gets_whole_revisions_and_no_more_than_fits(
    store: Store, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    write(store, create(Course(id="first")))
    write(store, touch(Course(id="second")))
    write(store, *(create(entity) for entity in EVERYTHING))
    write(store, touch(student("omar", "c")), touch(student("eve", "c")))
    write(store, remove(CourseKey("c")))
    whole = changes_of(store, 0, 100)
    monkeypatch.setattr(reader, "MAX_MUTATIONS_PER_READ", most)
    read: list[Change] = []
    while changes := changes_of(store, len(read), 100):
        assert len(changes) == 1 or sum(len(change.mutations) for change in changes) <= most
        read += changes
    assert tuple(read) == whole


@pytest.mark.parametrize(
    ("cut", "after", "skip"),
    [((1, 0), 0, 0), ((2, 0), 0, 0), ((2, 5), 1, 4), ((2, 5), 1, 5), ((2, 3), 1, 0), ((3, 0), 2, 0)],
)
def test_a_gap_is_an_error_wherever_it_is(store: Store, cut: tuple[int, int], after: int, skip: int) -> None:
    write(store, create(Course(id="first")))
    write(store, *(create(entity) for entity in EVERYTHING))
    write(store, touch(student("omar", "c")))
    changes = tables.changes
    with write_transaction(store.directory._engine) as connection:
        connection.execute(changes.delete().where(changes.c.revision == cut[0], changes.c.position == cut[1]))
    head = store.directory.head()
    with pytest.raises(OutOfRangeError) as caught:
        store.directory.read_log(msgspec.structs.replace(head, revision=after), skip, 100)
    assert caught.value.reason is ErrorReason.TOKEN_EXPIRED
