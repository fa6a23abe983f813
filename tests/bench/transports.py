"""Print what each transport makes of the same calls, in plain and with TLS and client certificates.

    python -m tests.bench.transports [memberships]

All servers share one database, one replica and one core, and are asked in turns. The client has another core.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import psutil

from authz.client import check_request
from authz.v1 import authorization_pb2 as apb
from tests.bench.caller import Load, Measured
from tests.bench.campus import Campus
from tests.bench.measure import show
from tests.bench.serving import running
from tests.callers import grant
from tests.forkserver import AUTHZ
from tests.runtime.test_mutual_tls import certify

ROUNDS = 5
ROUND_S = 2.0
BATCH = 100
CALLER = "service:bench"
TRANSPORTS = ("grpc", "envoy")
GOALS = {
    "Check": "goal 20,000 /s, p99 8 ms",
    "one call at a time": "goal 0.20 ms",
    "BatchCheck": "goal 120,000 /s",
}


class Row(msgspec.Struct, frozen=True):
    """A measure, and the microseconds of the server's processor for each call."""

    measured: Measured
    used_us: float


def loads(campus: Campus) -> dict[str, Load]:
    """What is asked, by its name."""
    service = "/authz.v1.AuthorizationService/"
    checks = [check_request(*ids) for ids in campus.questions(10_000)]
    batches = [apb.BatchCheckRequest(items=checks[n : n + BATCH]) for n in range(0, len(checks), BATCH)]
    check = Load(
        address="",
        method=service + "Check",
        messages=[each.SerializeToString() for each in checks],
        seconds=ROUND_S,
    )
    batch = msgspec.structs.replace(
        check, method=service + "BatchCheck", messages=[each.SerializeToString() for each in batches]
    )
    return {
        "Check": msgspec.structs.replace(check, connections=8, streams=10),
        "one call at a time": check,
        "BatchCheck": msgspec.structs.replace(batch, connections=4),
    }


def certificates(folder: Path) -> tuple[str, str, str]:
    """Those of a server and of its caller: the authority of both, the caller's certificate and key."""
    names = {"localhost": "DNS:localhost", "bench": "URI:spiffe://bench"}
    for name, known in names.items():
        certify(folder, name, "-addext", f"subjectAltName={known}")
    (folder / "callers.toml").write_text(f'[uri]\n"spiffe://bench" = "{CALLER}"\n')
    return str(folder / "localhost.pem"), str(folder / "bench.pem"), str(folder / "bench.key")


def ask(load: Load, pid: int, folder: Path) -> Row:
    """Have a process ask the server `pid`."""
    file = folder / "load"
    file.write_bytes(msgspec.msgpack.encode(load))
    process = psutil.Process(pid)
    used_s = sum(process.cpu_times()[:2])
    command = [sys.executable, "-m", "tests.bench.caller", str(file)]
    told = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    measured = msgspec.json.decode(told, type=Measured)
    return Row(measured, (sum(process.cpu_times()[:2]) - used_s) / (measured.rate * load.seconds) * 1e6)


def bench(folder: Path, size: int) -> None:
    """Four servers: each transport, in plain and with TLS."""
    os.sched_setaffinity(0, {0})  # and what it starts, but the caller
    campus = Campus(size)
    url = campus.fill_sqlite(folder / "bench.db")
    files = certificates(folder)
    grant(url, {CALLER: "checker"})
    tls = {
        "AUTHZ_TLS_CERTIFICATE_FILE": files[0],
        "AUTHZ_TLS_KEY_FILE": str(folder / "localhost.key"),
        "AUTHZ_TLS_CLIENT_CA_FILE": files[1],
        "AUTHZ_CALLERS_FILE": str(folder / "callers.toml"),
    }
    kinds = [(transport, secured) for transport in TRANSPORTS for secured in (False, True)]
    rows: dict[tuple[str, bool, str], list[Row]] = {}
    with ExitStack() as stack:
        # Keeps the replica current, so that the servers differ in nothing else.
        stack.enter_context(running([str(AUTHZ), "serve"], AUTHZ_DATABASE_URL=url))
        servers = {}
        for transport, secured in kinds:
            given = {"AUTHZ_TRANSPORT": transport, "AUTHZ_FOLLOW": "false", **(tls if secured else {})}
            pid, address, _ = stack.enter_context(
                running([str(AUTHZ), "serve"], AUTHZ_DATABASE_URL=url, AUTHZ_LOG_LEVEL="info", **given)
            )
            servers[transport, secured] = pid, address
        for _ in range(ROUNDS):
            for name, load in loads(campus).items():
                for kind in kinds:
                    pid, address = servers[kind]
                    sent = msgspec.structs.replace(load, address=address, files=files if kind[1] else None)
                    rows.setdefault((*kind, name), []).append(ask(sent, pid, folder))
    show_rows(rows)


def show_rows(rows: dict[tuple[str, bool, str], list[Row]]) -> None:
    """Print medians over the rounds, and of each ratio within a round."""
    for (transport, secured, name), found in rows.items():
        decisions = BATCH if name == "BatchCheck" else 1
        rate = decisions * median([each.measured.rate for each in found])
        figures = (
            f"{rate:,.0f} /s, p50 {median([each.measured.p50_ms for each in found]):.2f} ms,"
            f" p99 {median([each.measured.p99_ms for each in found]):.1f} ms,"
            f" {median([each.used_us for each in found]) / decisions:.1f} us"
        )
        show(f"{name}, {transport}{', TLS' if secured else ''}", figures, GOALS[name])
    for transport in TRANSPORTS:
        for name in GOALS:
            pairs = zip(rows[transport, False, name], rows[transport, True, name], strict=True)
            ratio = median([secured.measured.rate / plain.measured.rate for plain, secured in pairs])
            show(f"{name}, {transport}: with TLS against without, by rate", f"{ratio:.0%}", "goal 80%")


def median(figures: Sequence[float]) -> float:
    """The median."""
    return statistics.median(figures)


def main(size: int = 100_000) -> None:
    """Over one SQLite database of a campus."""
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as folder:
        bench(Path(folder), size)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 100_000)
