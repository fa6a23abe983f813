"""Print what a verification of the change log, a proof and a root cost, and what the tree adds to a write."""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import insert, update

from authz.domain.entities import Membership
from authz.domain.ids import Subject, SubjectType, course_scope
from authz.domain.mutations import Mutation, Operation
from authz.domain.proofs import AuditLog
from authz.domain.tree import MerkleTree
from authz.store import tables
from authz.store.bulk import upsert_rows
from authz.store.database.engine import open_engine, write_transaction
from authz.store.log.leaves import LeafMaker
from authz.store.rows import ENTITY_ROWS
from tests.bench.measure import cost_us, show
from tests.databases import create_sqlite, read_tree
from tests.store.directory import open_with

_CHUNK = 5000


def enrolment(number: int, people: int) -> Membership:
    """What a revision writes: each person is enrolled again and again, in one course."""
    person = number % people
    subject, course = Subject(SubjectType.USER, f"user-{person}"), course_scope(f"course-{person % 1000}")
    return Membership(subject, course, "student", source="sis", source_ref=f"enrolment-{number}")


def revisions(count: int, people: int) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Revisions of one enrolment each."""
    for number in range(1, count + 1):
        enrolled = enrolment(number, people)
        head = {
            "revision": number,
            "committed_at": 1_700_000_000_000_000 + number,
            "nonce": number,
            "actor": "service:roster-sync",
            "reason": "nightly import",
            "request_id": f"import-{number // 250}",
        }
        change = {
            "revision": number,
            "position": 0,
            "kind": "membership",
            "operation": "TOUCH",
            "mutation": msgspec.json.encode(Mutation(Operation.TOUCH, enrolled)).decode(),
            "course_id": enrolled.scope.id,
            "session_id": None,
            "previous": max(0, number - people),
        }
        yield head, [change]


def fill(url: str, count: int) -> None:
    """Store a log of this many revisions, with its leaves, and a tenth as many memberships."""
    engine, people = open_engine(url), max(1, count // 10)
    made, tree = revisions(count, people), MerkleTree()
    while part := list(itertools.islice(made, _CHUNK)):
        with write_transaction(engine) as connection:
            leaf_maker = LeafMaker(connection)
            connection.execute(insert(tables.revisions), [head for head, _ in part])
            connection.execute(insert(tables.changes), [row for _, rows in part for row in rows])
            connection.execute(insert(tables.leaves), [leaf_maker.row(*each, tree) for each in part])
            connection.execute(update(tables.counter).values(revision=part[-1][0]["revision"]))
    stored = ENTITY_ROWS["membership"]
    last = ((number, enrolment(number, people)) for number in range(count - people + 1, count + 1))
    while chunk := list(itertools.islice(last, _CHUNK)):
        with write_transaction(engine) as connection:
            upsert_rows(connection, stored.table, [(*stored.values(each), number) for number, each in chunk])
    engine.dispose()


def bench_proofs(url: str, count: int) -> None:
    """From what is stored with the leaves."""
    store, numbers = open_with(url), [*range(1, count, max(1, count // 500))]
    log = AuditLog.CHANGES
    _, median = cost_us(lambda each: store.proofs.inclusion(log, each, count), numbers, a_round=50)
    show("proof that the tree has a revision", f"{median / 1000:,.2f} ms")
    _, median = cost_us(lambda each: store.proofs.consistency(log, each, count), numbers, a_round=50)
    show("proof that a tree begins it", f"{median / 1000:,.2f} ms")
    _, median = cost_us(lambda _: store.proofs.root(log, count), numbers, a_round=50)
    show("its root, as a checkpoint signs it", f"{median / 1000:,.2f} ms")
    store.close()


def main(count: int = 1_000_000) -> None:
    """Over one SQLite database."""
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as folder:
        url = create_sqlite(Path(folder) / "bench.db")
        fill(url, count)
        begun = time.perf_counter()
        tree = read_tree(url)
        took_s = time.perf_counter() - begun
        assert tree.faults == ()
        assert (tree.size, tree.records) == (count, count // 10)
        show(f"verification of {count:,} revisions and {tree.records:,} records", f"{took_s:,.1f} s")
        show("the same, for a revision", f"{took_s / count * 1e6:,.1f} us")
        show("the same, for ten million", f"{took_s * 10_000_000 / count / 60:,.1f} min")
        bench_proofs(url, count)
        engine = open_engine(url)
        with write_transaction(engine) as connection:
            leaf_maker, grown = LeafMaker(connection), MerkleTree()
            least, _ = cost_us(lambda each: leaf_maker.row(*each, grown), [*revisions(20_000, 2_000)])
        engine.dispose()
        show("the leaf of a revision of one change", f"{least:.1f} us")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 1_000_000)
