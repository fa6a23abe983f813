"""An export shows a text that names the person, wherever an erasure would put the pseudonym."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, update

from authz.domain.audit import ChangeQuery
from authz.domain.drafts import PolicyDraft, Publication
from authz.domain.entities import Account, Course, CourseKey, EntityKind, PolicyVersion
from authz.domain.erasures import ErasureRequest
from authz.domain.exports import ExportedChange, ExportedEntry, ExportItem, ExportSection
from authz.domain.files import files_text
from authz.domain.ids import PLATFORM, course_scope
from authz.domain.mutations import WriteRequest
from authz.domain.origin import Origin
from authz.domain.ports import Page
from authz.store import Store, tables
from authz.store.database.engine import open_engine, write_transaction
from authz.store.log.verification import read_trees
from authz.store.privacy.erasure_steps import Phase
from authz.store.privacy.personal_texts import REVISION_TEXTS, TEXTS
from tests.store.directory import create, hold, open_with, release_hold, remove, student, user, write
from tests.store.privacy.test_erasures import finished
from tests.store.privacy.test_erasures_at_once import next_step
from tests.store.privacy.test_restored_erasures import FILES, MAYA, SHADOW, STU, tables_with_maya

COLUMNS = [
    (table.name, name) for table, names in ((tables.revisions, REVISION_TEXTS), *TEXTS) for name in names
]
NAMESAKE = user(MAYA.id[:-1])
"""Somebody else, with whose id that of Maya begins."""
REQUEST = ErasureRequest(subject=MAYA, origin=Origin("service:dpo", "request 17"), orphans=True)


def fill(store: Store) -> None:
    """A row in each of the tables, which names nobody but others."""
    write(store, create(Course("c")), *(create(student(f"u{number}", "c")) for number in range(40)))
    write(store, remove(CourseKey("c")))
    store.personal_data.begin_erasure(msgspec.structs.replace(REQUEST, subject=user("former")))
    store.recipients.record("service:x", sent=1)
    store.shadows.start(msgspec.structs.replace(SHADOW, files="{}"))


def exported(store: Store) -> list[ExportItem]:
    with store.personal_data.export(MAYA) as export:
        return [*export.items()]


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_column_that_an_erasure_rewrites_is_exported(sqlite_url: str, table: str, column: str) -> None:
    store = open_with(sqlite_url, contents_at_once=10)
    fill(store)
    assert exported(store) == []
    engine, rows = open_engine(sqlite_url), tables.metadata.tables[table]
    with write_transaction(engine) as connection:
        first = connection.execute(select(rows)).first()
        assert first is not None
        is_first = [key == getattr(first, key.name) for key in rows.primary_key]
        text = FILES if column == "files" else f"service:x for {MAYA}"
        connection.execute(update(rows).where(*is_first).values({column: text}))
    engine.dispose()
    assert str(MAYA) in repr(exported(store))
    store.personal_data.begin_erasure(REQUEST)
    finished(store)
    assert exported(store) == []
    assert tables_with_maya(sqlite_url) == []
    store.close()


VERSION = PolicyVersion(course_scope("c"), 1, "0" * 64, '{"model.conf":""}', 1, str(MAYA), "narrower")


def write_version(store: Store) -> None:
    """Its course is deleted since, so only the log has it."""
    write(store, create(Course("c")), create(VERSION))
    write(store, remove(CourseKey("c")))


@pytest.mark.parametrize(
    ("table", "column"),
    [each for each in COLUMNS if each[1] in {"reason", "request_id"}],
)
def test_the_texts_of_a_person_who_acted_lose_the_name_without_its_type_too(
    sqlite_url: str, table: str, column: str
) -> None:
    store = open_with(sqlite_url, contents_at_once=10)
    fill(store)
    engine, rows = open_engine(sqlite_url), tables.metadata.tables[table]
    with write_transaction(engine) as connection:
        texts = {"actor": f"service:x for {MAYA}", column: f"{MAYA.id}-1"}
        connection.execute(update(rows).values(texts))
    engine.dispose()
    store.personal_data.begin_erasure(REQUEST)
    finished(store)
    assert tables_with_maya(sqlite_url) == []
    store.close()


def write_version_that_stays(store: Store) -> None:
    write(store, create(Course("c")), create(VERSION))


def hold_and_release(store: Store) -> None:
    """So only the log has it."""
    hold(store, STU, f"he wrote to {MAYA}", f"service:dpo for {MAYA}")
    release_hold(store, STU)


DUE = 1_000


def plan(store: Store, *, files: str = "{}", **fields: Any) -> None:
    """A draft that is to be published, unless it has an error."""
    by_stu: dict[str, Any] = {
        "actor": f"service:x for {STU}",
        "person": STU,
        "reason": f"{STU} asked",
        "author": str(STU),
    }
    publication = Publication(at=DUE, **(by_stu | fields))
    draft = PolicyDraft(
        id="d",
        etag=1,
        base_number=1,
        files=files,
        author="",
        created_at=0,
        edited_at=0,
        publication=publication,
    )
    store.drafts.create(draft)


PLACES: dict[str, Callable[[Store], object]] = {
    "who placed a hold": lambda store: hold(store, STU, actor=f"service:dpo for {MAYA}"),
    "why somebody is held": lambda store: hold(store, STU, f"he wrote to {MAYA}"),
    "why somebody was held": hold_and_release,
    "the author of a version": write_version_that_stays,
    "the author of a version in the log": write_version,
    "a line of a draft": lambda store: plan(store, files=FILES),
    "the beginning of a line of a draft": lambda store: plan(store, files=files_text({"a": f"by\n{MAYA}"})),
    "who plans to publish": lambda store: plan(store, actor=f"service:x for {MAYA}", person=MAYA),
    "the author of what is planned": lambda store: plan(store, author=str(MAYA)),
    "why it is planned": lambda store: plan(store, reason=f"as {MAYA} asked"),
    "why it failed": lambda store: plan(store, error=f"{MAYA} may read m1"),
    "a key of a write": lambda store: write(store, create(Account(STU)), idempotency_key=f"x {MAYA}"),
    "a reason that somebody else gave": lambda store: write(store, create(Account(STU)), reason=f"{MAYA}"),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_another_caller_wrote_about_a_person_is_exported(store_url: str, place: str) -> None:
    store = open_with(store_url)
    PLACES[place](store)
    assert str(MAYA) in repr(exported(store))
    assert str(STU) not in repr(exported(store))
    with store.personal_data.export(NAMESAKE) as export:
        assert [*export.items()] == []
    store.personal_data.begin_erasure(REQUEST)
    finished(store)
    assert exported(store) == []
    store.close()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("phase", [Phase.WAIT, Phase.HISTORY])
def test_what_names_a_person_while_its_erasure_goes_on_is_erased_too(
    sqlite_url: str, place: str, phase: Phase
) -> None:
    store = open_with(sqlite_url)
    store.personal_data.begin_erasure(REQUEST)
    while next_step(store).phase is not phase:
        store.personal_data.advance_erasure()
    PLACES[place](store)
    finished(store)
    assert tables_with_maya(sqlite_url) == []
    assert [each.faults for each in read_trees(sqlite_url)] == [(), ()]
    store.close()


@pytest.mark.parametrize("kind", [EntityKind.HOLD, EntityKind.POLICY_VERSION])
def test_the_audit_trail_does_not_say_that_an_erasure_created_what_it_renames(
    store_url: str, kind: EntityKind
) -> None:
    store = open_with(store_url)
    hold(store, STU, f"he wrote to {MAYA}", f"service:dpo for {MAYA}")
    write(store, create(Course("c")), create(VERSION))
    store.personal_data.begin_erasure(REQUEST)
    finished(store)
    renamed, created = store.audit.read_changes(ChangeQuery(kinds=(kind,)), Page(9, "")).changes
    assert created.before is None
    assert renamed.reason == "request 17"
    assert renamed.before == renamed.after == created.after
    store.close()


@pytest.mark.parametrize(("count", "parts"), [(199, [199]), (200, [200]), (450, [200, 200, 50])])
def test_a_large_write_of_a_person_is_exported_in_parts_without_any_that_is_empty(
    sqlite_url: str, count: int, parts: list[int]
) -> None:
    store = open_with(sqlite_url)
    write(store, create(Course("c")))
    enrolled = tuple(create(student(f"u{number}", "c")) for number in range(count))
    store.directory.write(WriteRequest(mutations=enrolled, origin=Origin(f"service:x for {MAYA}")))
    changes = [each for each in exported(store) if isinstance(each, ExportedChange)]
    assert [len(each.mutations) for each in changes] == parts
    assert {each.actor for each in changes} == {f"service:x for {MAYA}"}
    store.close()


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"reason": f"as {MAYA} asked"}, ""),
        ({"author": str(MAYA)}, ""),
        ({"actor": f"service:x for {MAYA}", "person": MAYA}, "who scheduled this was erased"),
        ({"actor": str(MAYA), "caller": MAYA, "person": None}, "who scheduled this was erased"),
        ({"reason": f"as {MAYA} asked", "error": "no such role"}, "no such role"),
    ],
)
def test_a_draft_is_still_published_unless_it_is_the_erased_person_who_planned_that(
    store_url: str, fields: dict[str, Any], error: str
) -> None:
    store = open_with(store_url)
    plan(store, **fields)
    store.personal_data.begin_erasure(REQUEST)
    finished(store)
    (draft,) = store.drafts.list(PLATFORM)
    assert draft.publication is not None
    assert draft.publication.error.startswith(error)
    assert bool(draft.publication.error) == bool(error)
    assert (store.drafts.claim(DUE, until=DUE + 1) is None) == bool(error)
    store.close()


def test_who_is_held_learns_why_and_not_by_whom(store_url: str) -> None:
    store = open_with(store_url)
    hold(store, MAYA, "case 12", f"service:dpo for {STU}")
    found = exported(store)
    (entry,) = (each for each in found if isinstance(each, ExportedEntry))
    assert (entry.section, entry.text, entry.at is None) == (ExportSection.HOLDS, "case 12", False)
    (change,) = (each for each in found if isinstance(each, ExportedChange))
    assert (change.reason, change.actor) == ("case 12", "service:dpo for user:other")
    assert str(STU) not in repr(found)
    store.close()
