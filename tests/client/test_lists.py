"""Lists page by page, by a cursor that a program may give away and get back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from authz.client import (
    CallError,
    Client,
    Course,
    CourseState,
    InvalidArgumentError,
    ListPage,
    Membership,
    Mutation,
    Operation,
    Resource,
    course_scope,
    parse_subject,
)
from tests.client.conftest import Connect
from tests.serving import served

ALG = course_scope("alg")


def student(name: str) -> Membership:
    return Membership(subject=parse_subject(f"user:{name}"), scope=ALG, role="student")


def material(name: str) -> Resource:
    return Resource(type="material", id=name, scope=ALG, published=True)


@pytest.fixture
def client(sqlite_url: str, connect: Connect) -> Iterator[Client]:
    """A client of a service with ten materials, which ten students read."""
    records = [Course(id="alg", state=CourseState.ACTIVE)]
    each = [make(f"m{number}") for make in (student, material) for number in range(10)]
    with served(sqlite_url) as address, connect(address) as made:
        made.write([Mutation(Operation.CREATE, record) for record in [*records, *each]])
        yield made


LISTS: dict[str, tuple[Any, ...]] = {
    "list_resources": ("user:m0", "read", "material"),
    "list_subjects": ("read", "material:m0"),
}


def page_of(client: Client, name: str, **options: Any) -> ListPage[Any]:
    page: ListPage[Any] = getattr(client, f"{name}_page")(*LISTS[name], **options)
    return page


@pytest.mark.parametrize("name", LISTS)
def test_pages_miss_and_repeat_nothing_while_others_write(client: Client, name: str) -> None:
    whole = list(getattr(client, name)(*LISTS[name]))
    found: list[str] = []
    cursor = checked_at = ""
    while not found or cursor:
        page = page_of(client, name, page_size=3, cursor=cursor)
        assert len(page.items) <= 3
        assert page.checked_at != checked_at
        found += [getattr(each, "resource", "") or each.subject for each in page.items]
        cursor, checked_at = page.cursor, page.checked_at
        for make in (student, material):
            client.write([Mutation(Operation.CREATE, make(f"a{len(found)}"))])  # sorts before them all
    assert found == [getattr(each, "resource", "") or each.subject for each in whole]
    assert len(found) == 10


@pytest.mark.parametrize("name", LISTS)
def test_a_cursor_has_its_place_its_state_and_its_list(client: Client, name: str) -> None:
    first = page_of(client, name, page_size=9)
    assert page_of(client, name, cursor=first.cursor, fully_consistent=True).cursor == ""
    for cursor, reason in ((first.cursor[1:], "MALFORMED_TOKEN"), (first.cursor[:-1], "MALFORMED_TOKEN")):
        with pytest.raises(CallError) as refused:
            page_of(client, name, cursor=cursor)
        assert (refused.value.reason, refused.value.metadata) == (reason, {"field": "cursor"})
        assert str(refused.value).startswith("cursor is not a token")
    with pytest.raises(CallError, match="cursor belongs to another query"):
        page_of(client, name, cursor=first.cursor, purpose="ai_response")
    with pytest.raises(CallError, match="at_least_as_fresh is not a token"):
        page_of(client, name, at_least_as_fresh="x")
    with pytest.raises(InvalidArgumentError, match="cursor is `7`; give text"):
        page_of(client, name, cursor=7)


def test_an_empty_page_says_why(client: Client) -> None:
    page = client.list_subjects_page("read", "material:none")
    assert (page.items, page.cursor, page.reason) == ((), "", "RESOURCE_UNKNOWN")


def test_a_question_about_no_resource_says_what_to_ask(client: Client) -> None:
    with pytest.raises(CallError, match=r"`read` needs resource\.id, as in `material:<id>`"):
        client.list_subjects_page("read", "material")
    with pytest.raises(CallError, match="ask ListActions or `authz actions` where to create"):
        client.list_resources_page("user:m0", "create", "material")
