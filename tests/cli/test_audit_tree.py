"""Attempts to change history in the database, and what `authz audit verify` says of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Text, delete, func, insert, literal_column, select, update

from authz.audit.notes import NoteSigner
from authz.domain.entities import Account, AccountStatus, Course, Membership
from authz.domain.erasures import ErasureRequest
from authz.domain.ids import course_scope
from authz.domain.origin import Origin
from authz.store import Store, tables
from authz.store.database.engine import open_engine, read_transaction, write_transaction
from tests.cli.commands import run
from tests.cli.forgeries import ATTEMPTS, NOT_AS_COMMITTED, column, cut_off
from tests.store.directory import create, open_with, remove, student, touch, user, write

NAME = "example.org/authz"
RECORDS = "5 records are as the change log made them"
_erasures, _memberships, _accounts = (
    tables.ENTITY_TABLES[kind] for kind in ("erasure", "membership", "account")
)
TABLES = (
    tables.revisions,
    tables.changes,
    tables.leaves,
    tables.counter,
    _erasures,
    _memberships,
    _accounts,
    tables.erasure_steps,
)
"""What an attempt changes; each after those that it refers to."""
_changes, _revisions, _leaves, _counter = tables.changes, tables.revisions, tables.leaves, tables.counter


class History:
    """A database with a history of six revisions, of which the first five are signed, and who verifies it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder
        self.engine = open_engine(url)
        self._key = run("audit", "keygen", NAME, folder / "key").stdout.strip()

    def sign(self, name: str) -> Any:
        """Make a checkpoint."""
        done = run("audit", "checkpoint", "--key", self._folder / "key", "--database", self.url)
        (self._folder / name).write_text(done.stdout)
        return done

    def verify(self, *names: str, url: str = "") -> Any:
        """Verify checkpoints, of a copy of the database if `url` names one."""
        files = [self._folder / name for name in names]
        options = ("--public-key", self._key, "--database", url or self.url)
        return run("audit", "verify", *files, *options)

    def content(self) -> list[list[dict[str, Any]]]:
        """Everything in the tables of the history."""
        with read_transaction(self.engine) as connection:
            return [[dict(row) for row in connection.execute(select(table)).mappings()] for table in TABLES]

    def restore(self, content: list[list[dict[str, Any]]]) -> None:
        """Make the tables what they were."""
        with write_transaction(self.engine) as connection:
            for table in reversed(TABLES):
                connection.execute(delete(table))
            for table, rows in zip(TABLES, content, strict=True):
                if rows:
                    connection.execute(insert(table), rows)


@pytest.fixture(scope="module")
def history(shared_store_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    store = open_with(shared_store_url)
    known = Membership(subject=user("ada"), scope=course_scope("c"), role="teacher", source_ref="sis-7")
    write(store, create(Course(id="c")), reason="the term begins")
    write(store, create(student("maya", "c")), create(known))
    write(store, touch(Course(id="c", ai_enabled=True)), reason="asked for by Ada")
    write(store, create(student("omar", "c")))
    write(store, remove(student("maya", "c").key), reason="report 17")
    found = History(shared_store_url, tmp_path_factory.mktemp("tree"))
    assert found.sign("five").returncode == 0
    write(store, create(student("iris", "c")), create(Account(user("eve"), status=AccountStatus.SUSPENDED)))
    assert found.sign("six").returncode == 0
    store.close()
    yield found
    found.engine.dispose()


@pytest.fixture
def untouched(history: History) -> Iterator[History]:
    """Puts everything back."""
    content = history.content()
    yield history
    history.restore(content)


def test_a_history_that_nobody_changed_is_as_it_was_signed(history: History) -> None:
    both = history.verify("five", "six")
    assert both.returncode == 0, both.stderr
    assert both.stdout.splitlines() == ["revisions 1 to 6 are as they were signed", RECORDS]
    earlier = history.verify("five")
    assert earlier.stdout.splitlines() == [
        "revisions 1 to 5 are as they were signed",
        "revisions 6 to 6 are as they were committed, as far as the database says: no checkpoint has them",
        RECORDS,
    ]


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_to_change_history_is_found_out(untouched: History, name: str) -> None:
    attempt, told = ATTEMPTS[name]
    with write_transaction(untouched.engine) as connection:
        attempt(connection)
    found = untouched.verify("six")
    assert found.returncode == 1
    assert told in (found.stdout + found.stderr).splitlines()
    assert "as they were signed" not in found.stdout


UNATTESTED = {
    "changes.position",
    "counter.only",
    "counter.database_id",
    "counter.resumable_from",
}
"""What `verify` does not compare. Of the positions in a revision, only the order counts."""
REFERENCES = {"changes.revision", "revisions.revision"}
JUNK = [
    column
    for table in (_revisions, _changes, _leaves, _counter, _memberships, _accounts)
    for column in table.columns
    if str(column) not in UNATTESTED | REFERENCES
]


@pytest.mark.parametrize("column", JUNK, ids=str)
def test_what_the_service_would_not_write_is_found_out(untouched: History, column: Column[Any]) -> None:
    if untouched.url.startswith("postgresql") and not isinstance(column.type, Text):
        pytest.skip("PostgreSQL stores no text in this column")
    key = [*column.table.primary_key]
    with write_transaction(untouched.engine) as connection:
        last = select(*key).order_by(*(each.desc() for each in key)).limit(1)
        row = zip(key, connection.execute(last).one(), strict=True)
        junk = update(column.table).where(*(each == value for each, value in row))
        connection.execute(junk.values({column.name: literal_column("'x'")}))
    found = untouched.verify("six")
    assert found.returncode == 1, found.stdout
    assert found.stdout + found.stderr


def test_of_several_checkpoints_verify_says_which_the_log_still_has(untouched: History) -> None:
    with write_transaction(untouched.engine) as connection:
        cut_off(connection)
    found = untouched.verify("six", "five")
    assert found.returncode == 1
    assert found.stdout.splitlines() == [
        "the end is cut off: 6 revisions were signed, and the tree has 5",
        "the first 5 revisions are those that were signed",
    ]


def test_nothing_is_signed_that_is_not_as_it_was_committed(untouched: History) -> None:
    with write_transaction(untouched.engine) as connection:
        column(5, reason="report 18")(connection)
    refused = untouched.sign("seven")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.splitlines()[-1] == f"revision 5 {NOT_AS_COMMITTED}"


def test_texts_that_an_erasure_emptied_change_no_leaf_and_are_counted(untouched: History) -> None:
    store = open_with(untouched.url)
    for person in ("ada", "maya"):
        request = ErasureRequest(subject=user(person), origin=Origin("service:dpo", "request 17"))
        store.personal_data.begin_erasure(request)
    complete(store)
    found = untouched.verify("six")
    assert found.returncode == 0, found.stderr
    # The reason of revision 5, the source in revision 2 and in what the erasure deleted.
    assert "3 texts are no longer complete, as after an erasure" in found.stdout
    write(store, remove(student("omar", "c").key), reason="report 18")
    store.close()
    with write_transaction(untouched.engine) as connection:
        newest = connection.execute(select(func.max(_revisions.c.revision))).scalar_one()
        column(newest, reason="")(connection)
    found = untouched.verify("six")
    assert found.returncode == 1
    assert f"revision {newest} has lost a text, and nobody was erased since" in found.stderr


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("checkpoint", "--key", "{file}", "--database", "{url}"), "make one with `authz audit keygen`"),
        (("verify", "{file}", "--public-key", "{public}", "--database", "{url}"), "is not signed by"),
        (
            ("prove-inclusion", "1", "{file}", "--public-key", "{public}", "--database", "{url}"),
            "is not signed",
        ),
    ],
    ids=["checkpoint", "verify", "prove-inclusion"],
)
def test_a_file_that_is_no_text_is_refused_by_name(
    sqlite_url: str, tmp_path: Path, command: tuple[str, ...], says: str
) -> None:
    file = tmp_path / "binary"
    file.write_bytes(b"\xff\x00")
    public = NoteSigner.generate("example.org/authz").public_key()
    refused = run("audit", *(each.format(file=file, public=public, url=sqlite_url) for each in command))
    assert refused.returncode == 2
    assert str(file) in refused.stderr
    assert says in refused.stderr


def test_records_that_an_erasure_keeps_from_being_compared_are_no_success(untouched: History) -> None:
    store = open_with(untouched.url)
    request = ErasureRequest(subject=user("iris"), origin=Origin("service:dpo", "request 17"))
    store.personal_data.begin_erasure(request)
    found = untouched.verify("six")
    assert found.returncode == 2
    assert "the records are not compared" in found.stderr
    complete(store)
    store.close()
    assert untouched.verify("six").returncode == 0


def complete(store: Store) -> None:
    """Do every step of all erasures."""
    while store.personal_data.erasure_progress() is not None:
        store.personal_data.advance_erasure()
