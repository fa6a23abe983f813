"""A rename takes nothing along that ended, and forgets no id under which something is left."""

from __future__ import annotations

import pytest

from authz.domain.entities import Account, Course, ShareFilter
from authz.domain.erasures import RenameRequest
from authz.domain.errors import RemovalPendingError
from authz.domain.ids import Subject, course_scope
from authz.domain.ports import Page
from authz.store import Store
from tests.store.directory import (
    create,
    notebook,
    open_with,
    remove,
    remove_all_contents,
    share,
    student,
    user,
    write,
)

OLD, NEW = user("old"), user("new")
NOTES = [f"n{number}" for number in range(9)]


def rename(store: Store) -> None:
    store.personal_data.rename(RenameRequest(subject=OLD, to=NEW, reason="married"))


def shares_of(store: Store, who: Subject) -> int:
    return len(store.directory.read(ShareFilter(subject=who), Page(100, "")).items)


@pytest.mark.parametrize("leaver", [OLD, NEW], ids=["old", "new"])
def test_what_was_shared_with_somebody_who_left_is_not_shared_with_the_new_name(
    store_url: str, leaver: Subject
) -> None:
    store = open_with(store_url, contents_at_once=2)
    write(store, create(Course("bio")), *(create(student(each.id, "bio")) for each in (OLD, NEW)))
    write(store, *(create(notebook(name, course_scope("bio"))) for name in NOTES), create(Account(OLD)))
    write(store, *(create(share(name, leaver.id)) for name in NOTES))
    write(store, remove(student(leaver.id, "bio").key))
    assert shares_of(store, leaver)
    with pytest.raises(RemovalPendingError, match=f"what was shared with {leaver}"):
        rename(store)
    remove_all_contents(store)
    rename(store)
    assert shares_of(store, NEW) == shares_of(store, OLD) == 0
    store.close()
