"""The bounds of a page of the audit trail, which no client sees."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from authz.domain.audit import ChangePage, ChangeQuery
from authz.domain.entities import Course, CourseState, PolicyVersion
from authz.domain.files import files_text
from authz.domain.ids import PLATFORM
from authz.domain.ports import Page
from authz.store import Store, pagination
from tests.store.directory import create, student, touch, user, write


def pages(store: Store, query: ChangeQuery, size: int) -> Iterator[ChangePage]:
    token = ""
    while True:
        page = store.audit.read_changes(query, Page(size, token))
        yield page
        token = page.next_token
        if not token:
            return


def test_a_page_looks_at_a_bounded_number_of_rows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagination, "MAX_ROWS_PER_PAGE", 4)
    write(store, create(Course(id="c")), *(create(student(f"u{number}", "c")) for number in range(11)))
    for oldest_first in (False, True):
        query = ChangeQuery(subject=user("u5"), oldest_first=oldest_first)
        found = [[each.after for each in page.changes] for page in pages(store, query, 10)]
        assert found == [[], [student("u5", "c")], []]


def test_what_takes_many_bytes_is_sent_in_smaller_pages(store: Store) -> None:
    versions = [
        PolicyVersion(
            scope=PLATFORM,
            number=number,
            files=files_text({"default.csv": "#" * 400_000}),
            digest="0" * 64,
            format=1,
        )
        for number in range(1, 5)
    ]
    for version in versions:
        write(store, create(version))
    sizes = [len(page.changes) for page in pages(store, ChangeQuery(oldest_first=True), 10)]
    assert sizes == [2, 2]


def test_a_change_says_what_it_replaced(store: Store) -> None:
    course = Course(id="c")
    write(store, create(course))
    edited = msgspec.structs.replace(course, state=CourseState.ACTIVE)
    write(store, touch(edited), reason="begins")
    write(store, touch(edited))  # changes nothing
    (change, created) = store.audit.read_changes(ChangeQuery(), Page(10)).changes
    assert (change.before, change.after, change.reason) == (course, edited, "begins")
    assert (created.before, created.after) == (None, course)
