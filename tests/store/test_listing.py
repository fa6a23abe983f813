"""Listings: in order of keys by bytes, in pages that miss and repeat nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, event

from authz.domain.audit import ChangeQuery
from authz.domain.entities import (
    Course,
    CourseFilter,
    CourseKey,
    Entity,
    Filter,
    Membership,
    MembershipFilter,
    Resource,
    ResourceFilter,
    Session,
    Share,
    ShareFilter,
    ShareLevel,
)
from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.ids import ResourceRef, Scope, course_scope, session_scope
from authz.domain.ports import Page
from authz.store import Store, pagination
from tests.store.directory import create, lesson, open_with, remove, student, user, write

_IDS = ("a", "B", "a-b", "a.b", "Z", "_", "~", "10", "9")


def test_pages_follow_the_order_of_bytes(store: Store) -> None:
    write(store, *(create(Course(id=name)) for name in _IDS))
    seen: list[str] = []
    token, more = "", True
    while more:
        page = store.directory.read(CourseFilter(), Page(2, token))
        seen += [each.entity.id for each in page.items]
        token, more = page.next_token, bool(page.next_token)
    assert seen == sorted(_IDS, key=str.encode)


@pytest.mark.parametrize(("size", "more"), [(8, True), (9, False), (10, False)])
def test_a_next_token_is_there_exactly_when_there_is_more(store: Store, size: int, more: bool) -> None:
    write(store, *(create(Course(id=name)) for name in _IDS))
    assert bool(store.directory.read(CourseFilter(), Page(size)).next_token) is more


def test_paging_goes_on_after_a_key_that_was_deleted(store: Store) -> None:
    write(store, *(create(Course(id=name)) for name in ("a", "b", "c")))
    token = store.directory.read(CourseFilter(), Page(1)).next_token
    write(store, remove(CourseKey("a")))
    assert [e.entity.id for e in store.directory.read(CourseFilter(), Page(5, token)).items] == ["b", "c"]


def test_all_fields_of_a_filter_must_match(store: Store) -> None:
    write(store, *(create(entity) for entity in (*lesson("c", "s"), *lesson("d", "t"))))
    wanted = MembershipFilter(subject=user("maya"), scope=course_scope("d"))
    assert [e.entity for e in store.directory.read(wanted, Page(9)).items] == [student("maya", "d")]
    owned = store.directory.read(ResourceFilter(owner=user("maya"), scope=course_scope("c")), Page(9))
    assert [e.entity.id for e in owned.items] == ["c-nb"]


def test_a_filter_without_an_index_looks_at_some_rows_and_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagination, "MAX_ROWS_PER_PAGE", 4)
    write(store, create(Course(id="c")))
    names = [f"u{number}" for number in range(10)]
    for name in names:
        source = "roster" if name in ("u2", "u9") else ""
        write(store, create(msgspec.structs.replace(student(name, "c"), source=source)))
    wanted, pages, token = MembershipFilter(source="roster"), [], ""
    while True:
        page = store.directory.read(wanted, Page(100, token))
        pages.append([membership.entity.subject.id for membership in page.items])
        token = page.next_token
        if not token:
            break
    assert pages == [["u2"], [], ["u9"]]
    (one,) = store.directory.read(wanted, Page(1)).items
    assert one.entity.subject.id == "u2"
    # Where an index finds the rows, the others are not looked at.
    by_key = MembershipFilter(scope=course_scope("c"), subject=user("u9"), source="roster")
    page = store.directory.read(by_key, Page(100))
    assert (len(page.items), page.next_token) == (1, "")


@pytest.mark.parametrize("size", [0, -1, 1001])
def test_a_page_size_out_of_range_is_refused(store: Store, size: int) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        store.directory.read(CourseFilter(), Page(size))
    assert caught.value.reason is ErrorReason.MALFORMED_FIELD


def test_a_token_of_another_query_is_refused(store: Store) -> None:
    write(store, create(Course(id="a")), create(Course(id="b")))
    token = store.directory.read(CourseFilter(), Page(1)).next_token
    for other in (
        lambda: store.directory.read(CourseFilter(ids=("b",)), Page(1, token)),
        lambda: store.directory.read(ResourceFilter(), Page(1, token)),
    ):
        with pytest.raises(InvalidArgumentError) as caught:
            other()
        assert caught.value.reason is ErrorReason.MALFORMED_TOKEN


HERE, SHARED = course_scope("c"), ResourceRef("notebook", "n")
ROWS, PAGE_SIZE = 600, 20


@pytest.mark.parametrize(
    "wanted",
    [MembershipFilter(scope=HERE), ResourceFilter(type="notebook"), ShareFilter(resource=SHARED)],
    ids=["memberships", "resources", "shares"],
)
def test_the_last_page_takes_as_many_steps_as_the_first(sqlite_url: str, wanted: Filter[Entity]) -> None:
    store = open_with(sqlite_url)
    write(store, create(Course(id="c")), create(Resource(type="notebook", id="n", scope=HERE)))
    names = [f"u{number}" for number in range(ROWS)]
    write(store, *(create(student(name, "c")) for name in names))
    write(store, *(create(Resource(type="notebook", id=name, scope=HERE)) for name in names))
    shares = (Share(resource=SHARED, subject=user(name), level=ShareLevel.VIEWER) for name in names)
    write(store, *map(create, shares))
    steps, token = list[int](), ""
    with counted_steps() as count:
        for _ in range(ROWS // PAGE_SIZE):
            before = count()
            token = store.directory.read(wanted, Page(PAGE_SIZE, token)).next_token
            steps.append(count() - before)
    assert steps[-1] < 2 * steps[0]
    store.close()


@pytest.mark.parametrize("scope", [HERE, session_scope("s")], ids=str)
def test_a_page_of_the_changes_of_a_scope_takes_no_more_steps_the_more_there_are(
    sqlite_url: str, scope: Scope
) -> None:
    store = open_with(sqlite_url)
    write(store, create(Course(id="c")), create(Session(id="s", course_id="c")))
    hosts = [
        Membership(subject=user(f"h{number}"), scope=session_scope("s"), role="host")
        for number in range(2 * PAGE_SIZE)
    ]
    write(store, *map(create, hosts))
    steps = []
    with counted_steps() as count:
        for some in range(2):
            write(
                store,
                *(create(student(f"u{some}-{number}", "c")) for number in range(some * ROWS + PAGE_SIZE)),
            )
            before = count()
            assert (
                len(store.audit.read_changes(ChangeQuery(scope=scope), Page(PAGE_SIZE)).changes) == PAGE_SIZE
            )
            steps.append(count() - before)
    assert steps[1] < 2 * steps[0]
    store.close()


@contextmanager
def counted_steps() -> Iterator[Callable[[], int]]:
    """Counts the steps of SQLite's virtual machine."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def note(_c: object, cursor: Any, *_rest: object) -> None:
        cursor.connection.set_progress_handler(step, 1)

    event.listen(Engine, "before_cursor_execute", note)
    yield lambda: steps
    event.remove(Engine, "before_cursor_execute", note)
