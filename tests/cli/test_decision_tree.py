"""Attempts to change logged decisions in the database, and what `authz audit verify` says of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import scitt_cose
from sqlalchemy import Connection, delete, insert, select, update

from authz.domain.decision_log import DecisionEntry, DecisionQuery
from authz.domain.erasures import ErasureRequest
from authz.domain.instants import DAY_US
from authz.domain.origin import Origin
from authz.domain.ports import Page
from authz.domain.proofs import AuditLog
from authz.domain.tree import leaf_hash
from authz.store import Store, tables
from authz.store.database.engine import open_engine, read_transaction, write_transaction
from authz.store.log.decision_leaves import entries_of, leaf_content
from authz.store.log.leaves import LeafMaker
from authz.store.log.verification import read_trees
from tests.cli.commands import run
from tests.store.directory import Clock, open_with, user
from tests.store.log.test_decisions import ENTRY
from tests.store.retention import purge

TABLES = (tables.decisions, tables.decision_leaves, tables.decision_tree)
_decisions, _leaves, _tree = TABLES
BATCHES, LAST = 4, 4


def batch(number: int) -> list[DecisionEntry]:
    """Three decisions about different people."""
    return [
        msgspec.structs.replace(
            ENTRY,
            decision_id=f"d-{number}-{place}",
            at=ENTRY.at + 10 * number + place,
            subject=f"user:{name}",
            request_id=f"call of {name}",
        )
        for place, name in enumerate(("maya", "omar", "iris"))
    ]


class Decisions:
    """A database with four batches of decisions, all of them signed, and who verifies it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.engine = open_engine(url)
        self._folder = folder
        self._key = run("audit", "keygen", "example.org/authz", folder / "key").stdout.strip()

    def sign(self) -> Any:
        done = run("audit", "checkpoint", "--key", self._folder / "key", "--database", self.url)
        (self._folder / "signed").write_text(done.stdout)
        return done

    def verify(self) -> Any:
        options = ("--public-key", self._key, "--database", self.url)
        return run("audit", "verify", self._folder / "signed", *options)


@pytest.fixture(scope="module")
def signed(shared_store_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decisions]:
    store = open_with(shared_store_url)
    for number in range(1, BATCHES + 1):
        store.decisions.append(batch(number))
    store.close()
    found = Decisions(shared_store_url, tmp_path_factory.mktemp("decisions"))
    assert found.sign().returncode == 0
    yield found
    found.engine.dispose()


@pytest.fixture
def untouched(signed: Decisions) -> Iterator[Decisions]:
    """Puts everything back."""
    with read_transaction(signed.engine) as connection:
        content = [[dict(row) for row in connection.execute(select(table)).mappings()] for table in TABLES]
    yield signed
    with write_transaction(signed.engine) as connection:
        for table, rows in zip(TABLES, content, strict=True):
            connection.execute(delete(table))
            connection.execute(insert(table), rows)


def test_decisions_that_nobody_changed_are_as_they_were_signed(signed: Decisions) -> None:
    found = signed.verify()
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.splitlines()[-1] == (
        f"batches 1 to {BATCHES} of the logged decisions are as they were signed"
    )


def entry(number: int, place: int = 0) -> Any:
    return _decisions.c.decision_id == f"d-{number}-{place}"


def column(number: int, **values: Any) -> Callable[[Connection], None]:
    """Say something else of a decision."""

    def attempt(connection: Connection) -> None:
        connection.execute(update(_decisions).where(entry(number)).values(**values))

    return attempt


def leaf(number: int, **values: Any) -> Callable[[Connection], None]:
    """Say something else of a batch."""

    def attempt(connection: Connection) -> None:
        connection.execute(update(_leaves).where(_leaves.c.number == number).values(**values))

    return attempt


def one_less(connection: Connection) -> None:
    connection.execute(delete(_decisions).where(entry(2)))


def first_batch_less(connection: Connection) -> None:
    connection.execute(delete(_decisions).where(_decisions.c.leaf == 1))


def said_to_be_purged(connection: Connection, number: int = 1) -> None:
    connection.execute(delete(_decisions).where(_decisions.c.leaf == number))
    connection.execute(update(_leaves).where(_leaves.c.number == number).values(state="PURGED"))


def first_batch_less_with_its_leaf(connection: Connection) -> None:
    first_batch_less(connection)
    connection.execute(delete(_leaves).where(_leaves.c.number == 1))


def swapped(connection: Connection) -> None:
    for number, other in ((1, 2), (2, 1)):
        values = {"leaf": other + 10}
        connection.execute(update(_decisions).where(_decisions.c.leaf == number).values(**values))
    connection.execute(update(_decisions).where(_decisions.c.leaf > 10).values(leaf=_decisions.c.leaf - 10))


def one_more(connection: Connection) -> None:
    add(connection, leaf=3)


def one_more_in_no_leaf(connection: Connection) -> None:
    add(connection, leaf=None)


def one_more_from_before_the_others(connection: Connection) -> None:
    add(connection, leaf=None, at=ENTRY.at - 1)


def one_moved_out_of_its_leaf(connection: Connection) -> None:
    connection.execute(update(_decisions).where(entry(3)).values(leaf=None))


def add(connection: Connection, **values: Any) -> None:
    """A decision that nobody made."""
    found = connection.execute(select(_decisions).where(entry(3))).mappings().one()
    connection.execute(insert(_decisions).values(**{**found, "decision_id": "forged", **values}))


def cut_off(connection: Connection) -> None:
    connection.execute(delete(_decisions).where(_decisions.c.leaf == LAST))
    connection.execute(delete(_leaves).where(_leaves.c.number == LAST))
    connection.execute(update(_tree).values(size=LAST - 1))


def forged(connection: Connection) -> None:
    """What who knows the key of the database can do: a batch that agrees with a leaf of its own."""
    column(3, allowed=False)(connection)
    leaf = connection.execute(select(_leaves).where(_leaves.c.number == 3)).one()
    content = leaf_content(LeafMaker(connection), 3, entries_of(connection, leaf))
    values = {"hash": leaf_hash(content).hex(), "part": None}
    connection.execute(update(_leaves).where(_leaves.c.number == 3).values(**values))


OF_BATCH = "of the decisions, of 2023-11-14T22:13:20.0000"
ATTEMPTS: dict[str, tuple[Callable[[Connection], None], str]] = {
    "another answer": (column(1, allowed=False), f"batch 1 {OF_BATCH}10Z, is not as it was logged"),
    "another person": (column(2, subject="user:eve"), f"batch 2 {OF_BATCH}20Z, is not as it was logged"),
    "another caller": (column(2, caller="service:eve"), f"batch 2 {OF_BATCH}20Z, is not as it was logged"),
    "another resource": (column(3, resource="a:b"), f"batch 3 {OF_BATCH}30Z, is not as it was logged"),
    "another time": (column(3, at=ENTRY.at + 31), f"batch 3 {OF_BATCH}30Z, is not as it was logged"),
    "one less": (one_less, f"batch 2 {OF_BATCH}20Z, is not as it was logged"),
    "the head cut": (first_batch_less, f"batch 1 {OF_BATCH}10Z, is not as it was logged"),
    "the head cut, with its leaf": (
        first_batch_less_with_its_leaf,
        "batch 1 of the decisions has no leaf",
    ),
    "the head cut, as if by retention": (
        said_to_be_purged,
        f"batch 1 {OF_BATCH}10Z, is gone before its time",
    ),
    "said to be older": (
        leaf(2, first_at=1, last_at=1),
        "batch 2 of the decisions, of 1970-01-01T00:00:00.000001Z, is not as it was logged",
    ),
    "said to be more": (leaf(2, entries=4), f"batch 2 {OF_BATCH}20Z, is not as it was logged"),
    "two in another order": (swapped, f"batch 1 {OF_BATCH}10Z, is not as it was logged"),
    "one more": (one_more, f"batch 3 {OF_BATCH}30Z, is not as it was logged"),
    "one more in no leaf": (one_more_in_no_leaf, "1 decisions are in no leaf"),
    "one more in no leaf, from before the others": (
        one_more_from_before_the_others,
        "1 decisions are in no leaf",
    ),
    "one moved out of its leaf": (one_moved_out_of_its_leaf, "1 decisions are in no leaf"),
    "the end cut": (
        cut_off,
        f"the end is cut off: {LAST} batches of decisions were signed, and the tree has {LAST - 1}",
    ),
    "a leaf that agrees": (
        forged,
        f"the first {BATCHES} batches of decisions are not those that were signed",
    ),
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_to_change_decisions_is_found_out(untouched: Decisions, name: str) -> None:
    attempt, told = ATTEMPTS[name]
    with write_transaction(untouched.engine) as connection:
        attempt(connection)
    found = untouched.verify()
    assert found.returncode == 1
    lines = (found.stdout + found.stderr).splitlines()
    assert told in lines
    assert not [line for line in lines if line.startswith("-")]  # a count below zero
    assert "as they were signed" not in found.stdout


def test_decisions_that_are_not_as_they_were_logged_are_not_signed(untouched: Decisions) -> None:
    signed = (untouched._folder / "signed").read_text()
    with write_transaction(untouched.engine) as connection:
        one_less(connection)
    refused = untouched.sign()
    assert (refused.returncode, refused.stdout) == (1, "")
    (untouched._folder / "signed").write_text(signed)


def test_what_was_purged_leaves_its_hashes(store_url: str, tmp_path: Path) -> None:
    clock = Clock()
    store = open_with(store_url, clock)
    for number in (1, 2):
        store.decisions.append(batch(number))
    young = msgspec.structs.replace(ENTRY, decision_id="young", at=ENTRY.at + 5 * DAY_US)
    store.decisions.append([young])
    signed = Decisions(store_url, tmp_path)
    assert signed.sign().returncode == 0
    clock.now = ENTRY.at + 367 * DAY_US
    purge(store)
    kept = store.decisions.read(DecisionQuery(), Page(10)).entries
    store.close()
    assert [each.decision_id for each in kept] == ["young"]
    found = signed.verify()
    assert found.returncode == 0, found.stderr
    until = "2023-11-14T22:13:20.000022Z"
    assert f"retention has purged 2 batches, up to {until}: their hashes are kept" in found.stdout
    with write_transaction(signed.engine) as connection:
        said_to_be_purged(connection, 3)
        # As if it were as old as those that retention has purged.
        connection.execute(update(_leaves).where(_leaves.c.number == 3).values(last_at=ENTRY.at))
    signed.engine.dispose()
    assert "batch 3 of the decisions, of 2023-11-19T22:13:20Z, is gone before its time" in (
        signed.verify().stderr.splitlines()
    )


def test_an_independent_verifier_accepts_every_proof(signed: Decisions) -> None:
    store = open_with(signed.url)
    _, tree = read_trees(signed.url, (), range(BATCHES + 1))
    root = tree.roots[BATCHES]
    for number in range(1, BATCHES + 1):
        found = store.proofs.inclusion(AuditLog.DECISIONS, number, BATCHES)
        hashes = [each.hex() for each in found.hashes]
        content = found.content.hex()
        assert scitt_cose.verify_inclusion(content, number - 1, BATCHES, hashes, root.hex())
        assert f"d-{number}-0".encode() in found.content
        assert b"maya" not in found.content
        grown = store.proofs.consistency(AuditLog.DECISIONS, number, BATCHES)
        assert grown.holds_for(tree.roots[number], root)
    store.close()


def erase(store: Store, name: str) -> None:
    request = ErasureRequest(subject=user(name), origin=Origin(reason="request 17"), orphans=True)
    store.personal_data.begin_erasure(request)
    while store.personal_data.erasure_progress() is not None:
        store.personal_data.advance_erasure()


def test_an_erasure_changes_no_leaf(store_url: str) -> None:
    store = open_with(store_url)
    for number in (1, 2):
        store.decisions.append(batch(number))
    _, before = read_trees(store_url)
    erase(store, "maya")
    store.decisions.append(batch(3))  # that were asked before, and come late
    engine = open_engine(store_url)
    with read_transaction(engine) as connection:
        assert "maya" not in repr(connection.execute(select(_decisions)).all())
    engine.dispose()
    store.close()
    _, after = read_trees(store_url, (), (before.size,))
    assert after.faults == ()
    assert (after.size, after.roots[before.size]) == (3, before.roots[before.size])
