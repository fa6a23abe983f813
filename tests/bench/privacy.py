"""Print how long it takes to export and to erase a person with many records, among a million of others."""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import delete, update

from authz.domain.entities import Entity, Membership, Resource, Visibility
from authz.domain.erasures import ErasureRequest
from authz.domain.exports import ExportedRecord
from authz.domain.ids import course_scope
from authz.domain.mutations import Mutation, Operation
from authz.domain.origin import Origin
from authz.store import Store, tables
from authz.store.database.engine import open_engine, write_transaction
from tests.bench.campus import Campus
from tests.bench.log_tree import fill
from tests.bench.measure import show
from tests.store.directory import open_with, user

RECORDS, BATCH = 10_000, 500
MAYA = user("maya")


def records(campus: Campus) -> Iterator[Entity]:
    """Half of them memberships, half of them notebooks, each in a course of its own as far as there are."""
    for number in range(RECORDS // 2):
        scope = course_scope(f"c{number % campus.courses:07d}")
        yield Membership(MAYA, scope, "student", source=f"source-{number // campus.courses}")
        yield Resource("notebook", f"maya-{number}", scope=scope, owner=MAYA, visibility=Visibility.PRIVATE)


def enrol(store: Store, campus: Campus) -> None:
    """Write the records of the person, through the change log."""
    given = (Mutation(Operation.TOUCH, each) for each in records(campus))
    while batch := list(itertools.islice(given, BATCH)):
        store.directory.import_batch(batch, offset=0, origin=Origin("service:bench", "term"))


def filled(file: Path, campus: Campus, revisions: int) -> str:
    """The URL of a database with the records of the campus, and a log of as many revisions about others."""
    url = campus.fill_sqlite(file)
    engine = open_engine(url)
    with write_transaction(engine) as connection:
        connection.execute(delete(tables.revisions))
        connection.execute(update(tables.counter).values(revision=0))
    engine.dispose()
    fill(url, revisions)
    return url


def bench_export(store: Store) -> None:
    """All items, as a server reads them."""
    begun = time.perf_counter()
    with store.personal_data.export(MAYA) as export:
        items = [type(each) for each in export.items()]
    took_s = time.perf_counter() - begun
    show(f"export of {items.count(ExportedRecord):,} records, {len(items):,} items", f"{took_s:,.1f} s")


def bench_erasure(store: Store) -> None:
    """All steps, without the pauses that a server makes between them."""
    data, steps = store.personal_data, list[float]()
    begun = time.perf_counter()
    data.begin_erasure(ErasureRequest(subject=MAYA, origin=Origin(reason="bench"), orphans=True))
    while data.erasure_progress() is not None:
        step_at = time.perf_counter()
        data.advance_erasure()
        steps.append(time.perf_counter() - step_at)
    took_s = time.perf_counter() - begun
    show(f"erasure of {RECORDS:,} records, in {len(steps)} steps", f"{took_s:,.1f} s")
    *others, rewrite = sorted(steps)
    show("its longest step, which rewrites the file", f"{rewrite:,.1f} s")
    show("its longest step else, for which a write waits", f"{others[-1] * 1000:,.0f} ms")


def main(size: int = 1_000_000, revisions: int = 200_000) -> None:
    """Over one SQLite database with `size` records."""
    campus = Campus(size // 2)
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as folder:
        url = filled(Path(folder) / "bench.db", campus, revisions)
        store = open_with(url)
        enrol(store, campus)
        show(f"a person with {RECORDS:,} records", f"among {size:,}, {revisions:,} revisions")
        bench_export(store)
        bench_erasure(store)
        store.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
