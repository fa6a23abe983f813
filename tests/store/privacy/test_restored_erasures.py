"""A restored backup names an erased person nowhere, whichever table did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from authz.domain.drafts import PolicyDraft
from authz.domain.entities import Account, Course, ErasureFilter, Resource, ResourceFilter, Share, ShareLevel
from authz.domain.erasures import ERASURE_LIST_FORMAT, ErasureList, ErasureRequest, RenameRequest
from authz.domain.errors import FailedPreconditionError
from authz.domain.files import files_text
from authz.domain.ids import Subject, course_scope
from authz.domain.instants import DAY_US
from authz.domain.origin import Origin
from authz.domain.ports import Page
from authz.domain.shadow import PolicyShadow
from authz.store import Store
from authz.store.backup import back_up, restore
from authz.store.database.engine import open_engine, read_transaction
from authz.store.log.verification import read_trees
from authz.store.privacy.erasure_steps import Phase
from authz.store.tables import metadata
from tests.databases import create_sqlite
from tests.store.directory import (
    create,
    hold,
    lift_restriction,
    open_with,
    release_hold,
    remove,
    restrict,
    student,
    touch,
    user,
    write,
)
from tests.store.privacy.test_erasures_at_once import next_step
from tests.store.retention import eleven_years_ago, purge

MAYA, STU = user("m4y4"), user("stu")
FILES = files_text({"tests/one.toml": f'subject = "{MAYA}"'})
SHADOW = PolicyShadow(
    id="s",
    number=1,
    draft_id="",
    files=FILES,
    against_number=1,
    sample_rate=1.0,
    budget_us=1,
    author="",
    started_at=0,
    ends_at=1,
)


def create_and_delete(store: Store) -> None:
    write(store, create(Account(MAYA)))
    write(store, remove(Account(MAYA).key))


def hold_maya(store: Store) -> None:
    """With changes that retention would purge but for the hold."""
    create_and_delete(store)
    hold(store, MAYA)


def rename_maya(store: Store) -> None:
    write(store, create(Account(MAYA)))
    store.personal_data.rename(RenameRequest(subject=MAYA, to=user("khan"), origin=Origin(reason="married")))


def share_with_maya(store: Store) -> None:
    nb = Resource("notebook", "nb", course_scope("c"), owner=STU)
    write(store, create(Course("c")), create(nb))
    write(store, create(Share(nb.key, MAYA, ShareLevel.VIEWER, awaits_membership=True)))


def draft(store: Store, files: str) -> None:
    store.drafts.create(
        PolicyDraft(id="d", etag=1, base_number=1, files=files, author="", created_at=0, edited_at=0)
    )


PLACES: dict[str, Callable[[Store], object]] = {
    "a record that is gone": create_and_delete,
    "a rename": rename_maya,
    "a share": share_with_maya,
    "who is held": hold_maya,
    "who is restricted": lambda store: restrict(store, MAYA),
    "who held": lambda store: hold(store, STU, actor=f"service:dpo for {MAYA}"),
    "why somebody is held": lambda store: hold(store, STU, f"against {MAYA}"),
    "who watches": lambda store: store.recipients.record(f"service:x for {MAYA}", sent=1),
    "a key of a write": lambda store: write(store, create(Account(STU)), idempotency_key=f"x {MAYA}"),
    "a draft": lambda store: draft(store, FILES),
    "the beginning of a line": lambda store: draft(store, files_text({"a": f"by\n{MAYA}"})),
    "a shadow": lambda store: store.shadows.start(SHADOW),
}


ENDS = {"who is held": release_hold, "who is restricted": lift_restriction}
"""Before the erasure, and after the backup."""


def erasures_of(store: Store) -> ErasureList:
    """As the operator keeps them outside the database."""
    erasures = tuple(each.entity for each in store.directory.read(ErasureFilter(), Page(9, "")).items)
    return ErasureList(ERASURE_LIST_FORMAT, store.directory.head().database_id, erasures)


def tables_with_maya(url: str) -> list[str]:
    return tables_with(url, MAYA)


def tables_with(url: str, subject: Subject) -> list[str]:
    engine = open_engine(url)
    with read_transaction(engine) as connection:
        rows = {each.name: connection.execute(each.select()).all() for each in metadata.sorted_tables}
    engine.dispose()
    return [name for name, found in rows.items() if subject.id in repr(found)]


@pytest.mark.parametrize("place", PLACES)
def test_a_restore_finds_an_erased_person_wherever_the_backup_has_it(place: str, tmp_path: Path) -> None:
    clock, url = eleven_years_ago(), create_sqlite(tmp_path / "authz.db")
    backup, restored = tmp_path / "backup.db", f"sqlite:///{tmp_path / 'restored.db'}"
    store = open_with(url, clock)
    PLACES[place](store)
    write(store, touch(Account(STU)))
    if place == "who is held":
        clock.now += 1_200 * DAY_US
        write(store, create(Course("later")))
        purge(store)
    back_up(url, backup)
    assert tables_with_maya(f"sqlite:///{backup}")
    if end := ENDS.get(place):
        end(store, MAYA)
    store.personal_data.begin_erasure(
        ErasureRequest(subject=MAYA, origin=Origin(reason="request 17"), orphans=True)
    )
    known = erasures_of(store)
    store.close()
    restore(backup, restored, erasures=known, clock=clock)
    assert tables_with_maya(restored) == []
    assert [each.faults for each in read_trees(restored)] == [(), ()]


def test_who_was_to_get_resources_when_the_backup_was_made_does_not_get_them_after_an_erasure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The erasure that the list has goes on first: its pseudonym is the lower one."""
    pseudonyms = iter(["f" * 32, "0" * 32])
    drawn = SimpleNamespace(token_hex=lambda _: next(pseudonyms))
    monkeypatch.setattr("authz.store.privacy.erasure_steps.secrets", drawn)
    backup, restored = tmp_path / "backup.db", f"sqlite:///{tmp_path / 'restored.db'}"
    url = create_sqlite(tmp_path / "authz.db")
    store = open_with(url)
    write(store, create(Course("c")), create(Resource("notebook", "nb", course_scope("c"), owner=STU)))
    data = store.personal_data
    first = data.begin_erasure(
        ErasureRequest(subject=STU, origin=Origin(reason="request 17"), resources_to=MAYA)
    )
    back_up(url, backup)
    while data.erasure_progress() is not None:
        data.advance_erasure()
    data.begin_erasure(ErasureRequest(subject=MAYA, origin=Origin(reason="request 18"), orphans=True))
    known = erasures_of(store)
    store.close()
    restore(backup, restored, erasures=known)
    assert tables_with_maya(restored) == []
    store = open_with(restored)
    assert len(store.directory.read(ResourceFilter(owner=first), Page(9, "")).items) == 1
    store.close()


def test_an_id_that_was_released_is_free_again_when_its_restored_erasure_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server goes on with the erasure, because the restore was interrupted."""
    backup, restored = tmp_path / "backup.db", f"sqlite:///{tmp_path / 'restored.db'}"
    store = open_with(create_sqlite(tmp_path / "authz.db"))
    data = store.personal_data
    data.report_replica("host", write(store, create(Account(MAYA))))
    back_up(f"sqlite:///{tmp_path / 'authz.db'}", backup)
    data.begin_erasure(ErasureRequest(subject=MAYA, origin=Origin(reason="request 17"), orphans=True))
    while data.erasure_progress() is not None:
        data.advance_erasure()
    data.report_replica("host", store.directory.head().revision)
    data.release(MAYA, Origin(reason="a namesake starts here"))
    known = erasures_of(store)
    store.close()
    monkeypatch.setattr("authz.store.backup._finish_erasures", lambda *_: 0)
    restore(backup, restored, erasures=known)
    store = open_with(restored)
    data = store.personal_data
    while next_step(store).phase is not Phase.FILES:
        with pytest.raises(FailedPreconditionError, match="was erased"):
            write(store, touch(Account(MAYA)))
        with pytest.raises(FailedPreconditionError, match="was erased"):
            hold(store, MAYA)
        data.advance_erasure()
    write(store, create(Account(MAYA)))
    hold(store, MAYA)
    while data.erasure_progress() is not None:
        data.advance_erasure()
    assert not data.erased_since_report("host")
    assert [each.faults for each in read_trees(restored)] == [(), ()]
    store.close()


def test_the_certificate_of_somebody_whom_the_backup_does_not_name_is_complete(tmp_path: Path) -> None:
    backup, restored = tmp_path / "backup.db", f"sqlite:///{tmp_path / 'restored.db'}"
    store = open_with(create_sqlite(tmp_path / "authz.db"))
    write(store, create(Account(STU)))
    back_up(f"sqlite:///{tmp_path / 'authz.db'}", backup)
    pseudonym = store.personal_data.begin_erasure(
        ErasureRequest(subject=MAYA, origin=Origin(reason="request 17"), orphans=True)
    )
    known = erasures_of(store)
    store.close()
    restore(backup, restored, erasures=known)
    store = open_with(restored)
    assert store.personal_data.certificate(pseudonym).is_confirmed
    # The files of decisions of a machine are not in a backup, and may name the person.
    assert store.personal_data.erased_since_report("host").of(MAYA) == pseudonym
    with pytest.raises(FailedPreconditionError, match="was erased"):
        write(store, create(Account(MAYA)))
    store.close()


def test_a_restore_ends_also_if_a_removal_of_the_backup_names_the_person(tmp_path: Path) -> None:
    backup, restored = tmp_path / "backup.db", f"sqlite:///{tmp_path / 'restored.db'}"
    store = open_with(create_sqlite(tmp_path / "authz.db"), contents_at_once=2)
    here, of_maya = course_scope("c"), student(MAYA.id, "c")
    notes = [Resource("notebook", f"n{number}", here, owner=STU) for number in range(9)]
    write(store, create(Course("c")), create(of_maya), *map(create, notes))
    write(store, *(create(Share(each.key, MAYA, ShareLevel.VIEWER)) for each in notes))
    write(store, remove(of_maya.key))
    back_up(f"sqlite:///{tmp_path / 'authz.db'}", backup)
    assert "removals" in tables_with_maya(f"sqlite:///{backup}")
    store.personal_data.begin_erasure(
        ErasureRequest(subject=MAYA, origin=Origin(reason="request 17"), orphans=True)
    )
    known = erasures_of(store)
    store.close()
    restore(backup, restored, erasures=known)
    assert tables_with_maya(restored) == []
