"""A rename takes nothing along that ended, and forgets no id under which something is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest
from sqlalchemy import Connection

from authz.domain.entities import Account, Course, RetainedData, Session, ShareFilter
from authz.domain.erasures import RenameRequest
from authz.domain.errors import RemovalPendingError
from authz.domain.exports import ExportedEntry, ExportSection
from authz.domain.ids import Subject, course_scope, session_scope
from authz.domain.instants import DAY_US
from authz.domain.mutations import WriteRequest
from authz.domain.origin import Origin
from authz.domain.ports import Page
from authz.store import Store
from authz.store.privacy import renames
from authz.store.privacy.personal_texts import all_texts
from tests.store.directory import (
    Clock,
    changes_of,
    create,
    hold,
    notebook,
    open_with,
    remove,
    remove_all_contents,
    replay,
    share,
    stored,
    student,
    user,
    write,
)
from tests.store.log.test_decisions import ENTRY
from tests.store.privacy.test_personal_texts import plan
from tests.store.retention import eleven_years_ago, purge, set_period

OLD, NEW = user("old"), user("new")
NOTES = [f"n{number}" for number in range(9)]


def rename(store: Store) -> None:
    store.personal_data.rename(
        RenameRequest(subject=OLD, to=NEW, origin=Origin(reason="married"), merge=True)
    )


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


@pytest.mark.parametrize("leaver", [OLD, NEW], ids=["old", "new"])
@pytest.mark.parametrize("is_in_session", [False, True], ids=["course", "session"])
def test_a_share_whose_membership_ended_by_its_date_is_not_opened_by_that_of_the_other_id(
    store_url: str, leaver: Subject, is_in_session: bool
) -> None:
    clock = Clock()
    store = open_with(store_url, clock)
    where = session_scope("monday") if is_in_session else course_scope("bio")
    write(store, create(Course("bio")), create(Session(id="monday", course_id="bio")))
    write(store, *(create(notebook(name, where)) for name in ("ended", "shared", "both", "awaiting")))
    ending = msgspec.structs.replace(student(leaver.id, "bio"), role="teacher", ends_at=clock.now + 1)
    write(store, create(ending), *(create(share(name, leaver.id)) for name in ("ended", "both")))
    write(store, create(share("awaiting", leaver.id, awaits=True)))
    clock.now += 2
    stayer = OLD if leaver == NEW else NEW
    write(store, create(student(stayer.id, "bio")))
    write(store, *(create(share(name, stayer.id)) for name in ("shared", "both")))
    rename(store)
    assert shares_of(store, OLD) == 0
    found = store.directory.read(ShareFilter(subject=NEW), Page(100, "")).items
    assert {each.entity.resource.id for each in found} == {"shared", "both", "awaiting"}
    assert replay(changes_of(store, 0, store.directory.head().revision)) == stored(store)
    store.close()


def test_an_erasure_names_the_old_id_as_long_as_a_decision_has_it(store_url: str) -> None:
    clock = eleven_years_ago()
    store = open_with(store_url, clock)
    set_period(store, RetainedData.DECISIONS, 730)
    set_period(store, RetainedData.CHANGES, 90)
    write(store, create(Account(OLD)))
    store.decisions.append([msgspec.structs.replace(ENTRY, at=clock.now, subject=str(OLD))])
    rename(store)
    for number, (days, is_named) in enumerate(((100, True), (600, True), (100, False))):
        clock.now += days * DAY_US
        write(store, create(Course(f"c{number}")))
        purge(store)
        with store.personal_data.export(NEW) as export:
            assert (str(OLD) in repr([*export.items()])) is is_named
    store.close()


def test_others_write_while_a_purge_reads_the_texts(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = eleven_years_ago()
    store, other = open_with(store_url, clock), open_with(store_url, clock)
    set_period(store, RetainedData.CHANGES, 90)
    write(store, create(Account(OLD)))
    rename(store)
    clock.now += 100 * DAY_US
    write(store, create(Course("c")))
    read: list[str] = []

    def writing_meanwhile(connection: Connection) -> Iterator[str]:
        write(other, create(Course(f"c{len(read)}")))
        read.extend(all_texts(connection))
        return iter(read)

    monkeypatch.setattr(renames, "all_texts", writing_meanwhile)
    purge(store)
    assert read
    with store.personal_data.export(NEW) as export:
        assert str(OLD) not in repr([*export.items()])
    store.close()
    other.close()


def write_as_old(store: Store) -> None:
    """The change of a record that stays as long as the record."""
    origin = Origin(f"service:x for {OLD}")
    store.directory.write(WriteRequest(mutations=(create(Course("mine")),), origin=origin))


PLACES: dict[str, Callable[[Store], object]] = {
    "who made a change": write_as_old,
    "the reason of a change": lambda store: write(store, create(Course("c")), reason=f"as {OLD} asked"),
    "why somebody is held": lambda store: hold(store, user("stu"), f"he wrote to {OLD}"),
    "who placed a hold": lambda store: hold(store, user("stu"), actor=f"service:dpo for {OLD}"),
    "the author of a draft": lambda store: plan(store, author=str(OLD)),
    "a line of a draft": lambda store: plan(store, files=f'{{"a":"{OLD}"}}'),
    "who watches": lambda store: store.recipients.record(f"service:x for {OLD}"),
}


@pytest.mark.parametrize("place", PLACES)
def test_an_export_names_the_old_id_as_long_as_that_has_data(store_url: str, place: str) -> None:
    clock = eleven_years_ago()
    store = open_with(store_url, clock)
    set_period(store, RetainedData.CHANGES, 90)
    write(store, create(Account(OLD)))
    PLACES[place](store)
    rename(store)
    for number in range(3):
        clock.now += 100 * DAY_US
        write(store, create(Course(f"c{number}")))
        purge(store)
    with store.personal_data.export(OLD) as export:
        assert [*export.items()]
    with store.personal_data.export(NEW) as export:
        entries = [each for each in export.items() if isinstance(each, ExportedEntry)]
    assert [each.name for each in entries if each.section is ExportSection.RENAMES] == [str(OLD)]
    store.close()
