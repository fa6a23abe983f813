"""A restored backup names an erased person nowhere, whichever table did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from authz.domain.drafts import PolicyDraft
from authz.domain.entities import Account, Course, ErasureFilter, Resource, ResourceFilter
from authz.domain.erasures import ERASURE_LIST_FORMAT, ErasureList, ErasureRequest
from authz.domain.ids import course_scope
from authz.domain.instants import DAY_US
from authz.domain.origin import Origin
from authz.domain.ports import Page
from authz.domain.shadow import PolicyShadow
from authz.store import Store
from authz.store.backup import back_up, restore
from authz.store.database.engine import open_engine, read_transaction
from authz.store.log.verification import read_trees
from authz.store.tables import metadata
from tests.databases import create_sqlite
from tests.store.directory import create, hold, open_with, release_hold, remove, touch, user, write
from tests.store.retention import eleven_years_ago, purge

MAYA, STU = user("m4y4"), user("stu")
FILES = f'{{"tests/one.toml":"subject = \\"{MAYA}\\""}}'
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


def hold_maya(store: Store) -> None:
    """With changes that retention would purge but for the hold."""
    write(store, create(Account(MAYA)))
    write(store, remove(Account(MAYA).key))
    hold(store, MAYA)


PLACES: dict[str, Callable[[Store], object]] = {
    "who is held": hold_maya,
    "who held": lambda store: hold(store, STU, actor=f"service:dpo for {MAYA}"),
    "why somebody is held": lambda store: hold(store, STU, f"against {MAYA}"),
    "who watches": lambda store: store.recipients.record(f"service:x for {MAYA}", sent=1),
    "a key of a write": lambda store: write(store, create(Account(STU)), idempotency_key=f"x {MAYA}"),
    "a draft": lambda store: store.drafts.create(
        PolicyDraft(id="d", etag=1, base_number=1, files=FILES, author="", created_at=0, edited_at=0)
    ),
    "a shadow": lambda store: store.shadows.start(SHADOW),
}


def tables_with_maya(url: str) -> list[str]:
    engine = open_engine(url)
    with read_transaction(engine) as connection:
        rows = {each.name: connection.execute(each.select()).all() for each in metadata.sorted_tables}
    engine.dispose()
    return [name for name, found in rows.items() if MAYA.id in repr(found)]


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
    if place == "who is held":
        release_hold(store, MAYA)
    store.personal_data.begin_erasure(
        ErasureRequest(subject=MAYA, origin=Origin(reason="request 17"), orphans=True)
    )
    erasures = tuple(each.entity for each in store.directory.read(ErasureFilter(), Page(9, "")).items)
    known = ErasureList(ERASURE_LIST_FORMAT, store.directory.head().database_id, erasures)
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
    erasures = tuple(each.entity for each in store.directory.read(ErasureFilter(), Page(9, "")).items)
    known = ErasureList(ERASURE_LIST_FORMAT, store.directory.head().database_id, erasures)
    store.close()
    restore(backup, restored, erasures=known)
    assert tables_with_maya(restored) == []
    store = open_with(restored)
    assert len(store.directory.read(ResourceFilter(owner=first), Page(9, "")).items) == 1
    store.close()
