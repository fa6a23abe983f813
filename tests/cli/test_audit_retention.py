"""A purged history verifies, and deletions that retention does not cover are found out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Connection, delete, update

from authz.domain.entities import Course, Membership, RetainedData, RetentionRule
from authz.domain.ids import course_scope
from authz.domain.instants import DAY_US
from authz.domain.origin import Origin
from authz.store import Store, tables
from authz.store.database.engine import write_transaction
from tests.cli.commands import run
from tests.cli.forgeries import column, mutation, removed
from tests.cli.test_audit_tree import History
from tests.databases import create_sqlite
from tests.store.directory import Clock, create, open_with, remove, student, touch, user, write
from tests.store.retention import YEAR_US, purge

_changes, _leaves, _rules = tables.changes, tables.leaves, tables.ENTITY_TABLES["retention_rule"]
NOT_AS_COMMITTED = "is not as it was committed"
CUT = 6
"""The last revision that retention has looked at."""


def written(store: Store, clock: Clock) -> None:
    """Six revisions that are compacted later, and two that are not."""
    ada = Membership(subject=user("ada"), scope=course_scope("c"), role="teacher", source_ref="sis-7")
    write(store, create(Course(id="c")), create(Course(id="d")), reason="the term begins")
    write(store, create(student("maya", "c")), create(ada), create(student("omar", "c")))
    write(store, touch(Course(id="c", ai_enabled=True)))
    write(store, touch(msgspec.structs.replace(ada, source_ref="sis-8")))
    write(store, create(student("iris", "c")))
    write(store, remove(student("omar", "c").key))
    clock.now += 3 * YEAR_US
    write(store, touch(Course(id="c")))
    write(store, create(student("noor", "c")))
    clock.now += 2 * DAY_US


@pytest.fixture(scope="module")
def purged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    clock = Clock()
    clock.now -= 5 * YEAR_US
    folder = tmp_path_factory.mktemp("tree")
    url = create_sqlite(folder / "authz.db")
    store = open_with(url, clock)
    written(store, clock)
    found = History(url, folder)
    assert found.sign("before").returncode == 0
    purge(store)
    store.close()
    assert found.sign("after").returncode == 0
    yield found
    found.engine.dispose()


@pytest.fixture
def untouched(purged: History) -> Iterator[History]:
    """Puts everything back."""
    content = purged.content()
    yield purged
    purged.restore(content)


def test_what_was_signed_before_a_purge_still_verifies_and_the_purge_is_told(purged: History) -> None:
    found = purged.verify("before", "after")
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.splitlines() == [
        "revisions 1 to 9 are as they were signed",
        "7 records are as the change log made them",
        f"retention has purged 4 changes of revisions 1 to {CUT}: their hashes are kept, and the last change"
        " of each record is there",
    ]


def test_a_backup_of_a_purged_history_verifies_as_well(purged: History, tmp_path: Path) -> None:
    backup, copy = tmp_path / "backup.db", f"sqlite:///{tmp_path / 'copy.db'}"
    assert run("backup", backup, "--database", purged.url).returncode == 0
    assert run("restore", backup, "--database", copy).returncode == 0
    assert purged.verify("before", "after", url=copy).returncode == 0


def one_change(revision: int, position: int) -> Callable[[Connection], None]:
    """Delete one change."""

    def attempt(connection: Connection) -> None:
        connection.execute(
            delete(_changes).where(_changes.c.revision == revision, _changes.c.position == position)
        )

    return attempt


def unlinked(connection: Connection) -> None:
    """Say that a change was the first of its record, and delete the one before it."""
    removed(3)(connection)
    connection.execute(update(_changes).where(_changes.c.revision == 7).values(previous=0))


def claimed(connection: Connection) -> None:
    """Say in the table of rules that more was purged."""
    connection.execute(update(_rules).values(through=8))
    removed(8)(connection)


ATTEMPTS: dict[str, tuple[Callable[[Connection], None], str]] = {
    "the last change of a record that has not changed since": (
        removed(5),
        "membership user:iris student in course:c is not in the change log",
    ),
    "the last change of a record that has changed since": (
        removed(3),
        "revision 3 has lost the last change of course:c",
    ),
    "one of the changes that are left of a revision": (one_change(1, 1), f"revision 1 {NOT_AS_COMMITTED}"),
    "a revision after the cut": (removed(8), "revision 8 is gone"),
    "a revision after a cut in the table of rules": (claimed, "revision 8 is gone"),
    "a change that says it was the first": (unlinked, f"revision 7 {NOT_AS_COMMITTED}"),
    "another person in what is left": (
        mutation(4, '"id":"ada"', '"id":"eve"'),
        f"revision 4 {NOT_AS_COMMITTED}",
    ),
    "another reason of what is left": (column(1, reason="no term"), f"revision 1 {NOT_AS_COMMITTED}"),
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_deletion_that_retention_does_not_cover_is_found_out(untouched: History, name: str) -> None:
    attempt, told = ATTEMPTS[name]
    with write_transaction(untouched.engine) as connection:
        attempt(connection)
    found = untouched.verify("before", "after")
    assert found.returncode == 1
    assert any(line.startswith(told) for line in found.stderr.splitlines()), found.stderr
    assert "as they were signed" not in found.stdout


def test_a_purge_before_its_time_is_found_out(untouched: History) -> None:
    """Who can append to the log cannot say that retention covers a deletion: no period is so short."""
    store = open_with(untouched.url)
    with store.directory.transaction() as transaction:
        rule = RetentionRule(
            RetainedData.CHANGES, 90, removed=9, complete_since=transaction.now - 89 * DAY_US, through=8
        )
        with transaction.revision(Origin("authz", "", "")) as batch:
            batch.rewrite([rule])
    store.close()
    with write_transaction(untouched.engine) as connection:
        removed(8)(connection)
    found = untouched.verify("before", "after")
    assert found.returncode == 1
    assert "the purge in revision 10 went further than any retention period allows" in found.stderr
