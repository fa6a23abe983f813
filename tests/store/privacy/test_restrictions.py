"""A restriction is a record of its own: only `LiftRestriction` ends it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from sqlalchemy import Executable, delete, update

from authz.domain.entities import Account, AccountStatus, Restriction
from authz.domain.erasures import RenameRequest
from authz.domain.errors import ErrorReason, FailedPreconditionError
from authz.domain.exports import ExportedEntry, ExportSection
from authz.domain.mutations import Operation
from authz.domain.origin import Origin
from authz.store import Store
from authz.store.database.engine import open_engine, write_transaction
from authz.store.rows import ENTITY_ROWS
from tests.databases import read_tree
from tests.store.directory import (
    Clock,
    create,
    hold,
    lift_restriction,
    open_with,
    release_hold,
    remove,
    restrict,
    touch,
    user,
    write,
)
from tests.store.privacy.test_erasures import MAYA, REQUEST, STU, fill, finished, log_of

RENAME = RenameRequest(subject=MAYA, to=user("mia"), origin=Origin(reason="a new name"))
TABLE = ENTITY_ROWS["restriction"].table


def restricted(store: Store) -> list[Restriction]:
    return [each.restriction.entity for each in store.personal_data.restrictions()]


def require_kept(store: Store, told: str) -> None:
    """The subject is neither erased nor renamed, and the refusals say why."""
    for call in (
        lambda: store.personal_data.begin_erasure(REQUEST),
        lambda: store.personal_data.rename(RENAME),
    ):
        with pytest.raises(FailedPreconditionError, match=told) as refused:
            call()
        assert refused.value.reason is ErrorReason.SUBJECT_HELD


def test_a_restriction_is_logged_with_its_reason_when_it_begins_and_ends(
    store: Store, store_url: str, clock: Clock
) -> None:
    begun = restrict(store, MAYA, "request 17")
    (found,) = store.personal_data.restrictions()
    assert found.restriction.entity == Restriction(MAYA, clock.now)
    assert found.restriction.revision == begun.revision
    assert (found.reason, found.actor) == ("request 17", "service:dpo")
    with pytest.raises(FailedPreconditionError, match=r"is restricted already, since .*: request 17"):
        restrict(store, MAYA)
    with store.personal_data.export(MAYA) as export:
        entries = [each for each in export.items() if isinstance(each, ExportedEntry)]
    held = ExportedEntry(ExportSection.HOLDS, "restriction", "request 17", clock.now)
    assert held in entries
    lift_restriction(store, MAYA, "settled")
    with pytest.raises(FailedPreconditionError, match="is not restricted"):
        lift_restriction(store, MAYA)
    changes = store.directory.follow(0, 10).changes
    assert [(each.reason, mutation.operation) for each in changes for mutation in each.mutations] == [
        ("request 17", Operation.TOUCH),
        ("settled", Operation.DELETE),
    ]
    assert read_tree(store_url).faults == ()


def test_no_write_of_the_account_ends_it_or_is_refused_for_it(store: Store) -> None:
    restrict(store, MAYA)
    for mutation in (
        create(Account(MAYA, AccountStatus.SUSPENDED)),
        touch(Account(MAYA)),
        remove(Account(MAYA).key),
        create(Account(MAYA)),
    ):
        write(store, mutation)
        assert [each.subject for each in restricted(store)] == [MAYA]


def test_a_hold_and_a_restriction_end_each_by_itself(store: Store) -> None:
    fill(store)
    hold(store, MAYA)
    restrict(store, MAYA, "request 17")
    require_kept(store, "is held, .*: case 12; when that is over, release it")
    release_hold(store, MAYA)
    require_kept(store, "is restricted, .*: request 17; when that is over, lift it with `authz privacy lift")
    hold(store, MAYA)
    lift_restriction(store, MAYA)
    require_kept(store, "is held")
    assert restricted(store) == []
    release_hold(store, MAYA)
    restrict(store, STU)
    store.personal_data.begin_erasure(REQUEST)
    finished(store)
    assert "id='maya'" not in log_of(store)
    assert [each.subject for each in restricted(store)] == [STU]


@pytest.mark.parametrize("merge", [False, True])
def test_nobody_is_renamed_into_a_restriction(store: Store, merge: bool) -> None:
    fill(store)
    restrict(store, user("mia"), "request 17")
    renaming = msgspec.structs.replace(RENAME, merge=merge)
    with pytest.raises(FailedPreconditionError, match=r"user:mia is restricted, .*: request 17; lift"):
        store.personal_data.rename(renaming)
    lift_restriction(store, user("mia"))
    store.personal_data.rename(renaming)


def test_who_is_being_erased_is_not_restricted(store: Store) -> None:
    fill(store)
    store.personal_data.begin_erasure(REQUEST)
    with pytest.raises(FailedPreconditionError, match="was erased"):
        restrict(store, MAYA)
    assert restricted(store) == []


def test_a_store_that_is_opened_again_has_it(store_url: str) -> None:
    store = open_with(store_url)
    restrict(store, MAYA)
    store.close()
    store = open_with(store_url)
    assert [each.subject for each in restricted(store)] == [MAYA]
    store.close()


ATTEMPTS: dict[str, tuple[Callable[[], Executable], str]] = {
    "a restriction less": (lambda: delete(TABLE), "restriction of user:maya of revision 1 is gone"),
    "another time": (
        lambda: update(TABLE).values(since=1),
        "restriction of user:maya is not as revision 1 made it",
    ),
    "another person": (
        lambda: update(TABLE).values(subject_id="stu"),
        "restriction of user:stu is not in the change log",
    ),
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_whoever_changes_it_in_the_database_is_found_out(store: Store, store_url: str, name: str) -> None:
    attempt, told = ATTEMPTS[name]
    restrict(store, MAYA)
    engine = open_engine(store_url)
    with write_transaction(engine) as connection:
        connection.execute(attempt())
    engine.dispose()
    assert told in read_tree(store_url).faults
