"""Print what a check costs whose answer is logged, and how many lines a second a file takes."""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import msgspec
import uvloop
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

from authz.audit.decision_log import DecisionLog
from authz.audit.lines import LinesFile
from authz.audit.otlp import OtlpSink
from authz.client import check_request
from authz.domain.decision_log import DecisionEntry
from authz.runtime.faces import AsgiFace
from authz.runtime.logs import configure_logging
from authz.runtime.otel import VERSION, open_resource
from authz.runtime.server import Server
from authz.runtime.settings import Settings
from tests.bench.campus import Campus
from tests.bench.measure import cost_us, ratio_text, show
from tests.bench.pipeline import Case, scope_of
from tests.bench.serving import Load, drive_in_turns, running
from tests.collector import collecting
from tests.databases import create_sqlite
from tests.forkserver import AUTHZ
from tests.store.directory import open_with

ENTRY = DecisionEntry(
    decision_id="5f0c3a9be1d2-1",
    at=1_700_000_000_000_000,
    method="Check",
    code="OK",
    caller="service:notebooks",
    subject="user:maya",
    action="read",
    resource="notebook:nb-7",
    allowed=True,
    reason="ROLE_GRANT",
    role="student",
    rule="default.csv:166",
    policy_version="1",
    revision=812,
    duration_us=141,
)
RATE, SECONDS, BATCH = 50_000, 4, 250


def bench_check(folder: Path, size: int) -> None:
    """Two servers over one database and one replica, asked in turns: one logs every decision."""
    campus = Campus(size)
    url = campus.fill_sqlite(folder / "bench.db")
    checks = [check_request(*ids).SerializeToString() for ids in campus.questions(10_000)]
    check = itertools.cycle(checks).__next__
    command = [str(AUTHZ), "serve"]
    file, table = (
        {"AUTHZ_FOLLOW": "false", "AUTHZ_DECISION_LOG": name}
        for name in (f"file:{folder / 'decisions.jsonl'}", "table")
    )
    with (
        running(command, AUTHZ_DATABASE_URL=url) as (off_pid, off_address, _),
        running(command, AUTHZ_DATABASE_URL=url, **file) as (pid, address, _),
        running(command, AUTHZ_DATABASE_URL=url, **table) as (table_pid, table_address, _),
    ):
        servers = (off_address, off_pid), (address, pid), (table_address, table_pid)
        rounds = drive_in_turns([Load(*server, "Check", check) for server in servers])
    show("Check without a decision log", f"{statistics.median(off[1] for off, *_ in rounds):,.0f} us")
    ratio = ratio_text(on[1] / off[1] for off, on, _ in rounds)
    show("Check that is logged in a file, against without", ratio, "goal 1.05x")
    ratio = ratio_text(off[0] / on[0] for off, on, _ in rounds)
    show("the same, by rate", ratio, "goal 1.05x")
    ratio = ratio_text(in_table[1] / off[1] for off, _, in_table in rounds)
    show("Check that is logged in the table of SQLite, against without", ratio)


async def bench_entry(folder: Path, size: int) -> None:
    """What an entry costs the event loop: two servers of this process without Envoy, asked in turns."""
    campus = Campus(size)
    url = campus.fill_sqlite(folder / "entry.db")
    checks = [check_request(*ids).SerializeToString() for ids in campus.questions(10_000)]
    check, scope = itertools.cycle(checks).__next__, scope_of("Check")
    off = Settings(database_url=url, transport="envoy")
    on = Settings(
        database_url=url, transport="envoy", follow=False, decision_log=f"file:{folder / 'entries'}"
    )
    faces = AsgiFace(off), AsgiFace(on)
    async with Server(off, face=faces[0]), Server(on, face=faces[1]):
        cases = [Case(face.server, scope, check, 600, 16) for face in faces]
        rounds = [[await case.used_us() for case in cases] for _ in range(100)]
    more = statistics.median(logged - without for without, logged in rounds)
    show("an entry on the event loop: processor", f"{more:,.1f} us")


def bench_lines(folder: Path) -> None:
    """Entries at a steady rate, as the event loop of a server makes them."""
    log = DecisionLog([LinesFile(folder / "lines.jsonl", max_bytes=1 << 30, kept=1)], sample_rate=1)
    begun, made, lag_s = time.perf_counter(), 0, 0.0
    while made < RATE * SECONDS:
        due = int((time.perf_counter() - begun) * RATE)
        for number in range(made, due):
            log.put(partial(msgspec.structs.replace, ENTRY, decision_id=f"d-{number}"))
        made = max(made, due)
        lag_s = time.perf_counter() - begun - made / RATE
        time.sleep(0.001)
    took_s = time.perf_counter() - begun
    log.close()
    with (folder / "lines.jsonl").open("rb") as lines:
        written = sum(1 for _ in lines)
    show("entries a second that are made", f"{made / took_s:,.0f}", f"goal {RATE:,}")
    show("of these not written, one process on one core", f"{made - written:,}", "goal 0")
    show("how far the maker is behind at the end", f"{lag_s * 1000:,.1f} ms")
    file = LinesFile(folder / "batches.jsonl", max_bytes=1 << 30, kept=1)
    _, median = cost_us(file.write, [[ENTRY] * BATCH] * 400, a_round=10, clock=time.thread_time)
    show("an entry in a line of JSON, in batches of 250: processor", f"{median / BATCH:,.1f} us")


def bench_table(folder: Path) -> None:
    """What the thread of the table does for an entry, with the leaf that the entry is in."""
    store = open_with(create_sqlite(folder / "table.db"))
    batches = [
        [
            msgspec.structs.replace(ENTRY, decision_id=f"d-{n}", at=ENTRY.at + n, subject=f"user:{n % 977}")
            for n in range(first, first + BATCH)
        ]
        for first in range(0, 100 * BATCH, BATCH)
    ]
    least, median = cost_us(store.decisions.append, batches, a_round=5)
    show("an entry in the table of SQLite, in batches of 250: least", f"{least / BATCH:,.1f} us")
    show("the same, median", f"{median / BATCH:,.1f} us")
    store.close()


def bench_otlp() -> None:
    """What the thread of the sink `otlp` does for an entry, with a collector in another thread."""
    with collecting() as collector:
        exporter = OTLPLogExporter(endpoint=f"{collector.address}/v1/logs")
        sink, entries = OtlpSink(exporter, open_resource(), VERSION), [ENTRY] * BATCH
        sink.write(entries)
        begun_s = time.thread_time()
        for _ in range(20):
            sink.write(entries)
        took_s = time.thread_time() - begun_s
    show("an entry to a collector, in batches of 250: processor", f"{took_s / 20 / BATCH * 1e6:,.1f} us")


def main(size: int = 10_000) -> None:
    """Over one SQLite database of a campus."""
    configure_logging("error")
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as folder:
        bench_lines(Path(folder))
        bench_table(Path(folder))
        bench_otlp()
        uvloop.run(bench_entry(Path(folder), size))
        bench_check(Path(folder), size)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 10_000)
