"""Print what one client that abuses HTTP/2 costs an honest one, over each transport.

    python -m tests.bench.attacks [seconds [attack …]]

The honest client has one call in flight. Each attack meets a new server, since some leave gigabytes behind.
See tests/faults/http2.py for the attacks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import grpc
import msgspec
import psutil

from authz.client import check_request
from authz.v1 import authorization_pb2_grpc
from tests.bench.measure import show
from tests.bench.transports import TRANSPORTS
from tests.databases import create_sqlite
from tests.faults import http2
from tests.faults.honest import p99
from tests.serving import drain, serving

IDLE = 1000
"""Connections that only exist, in one of the attacks."""
SAMPLE_S = 0.05
TIMEOUT_S = 60.0
IDLE_CONNECTIONS = "idle connections"
ATTACK = "attack"


class Seen(msgspec.Struct):
    """What the honest client and the machine saw."""

    took_ms: list[float] = []
    codes: Counter[str] = msgspec.field(default_factory=Counter)
    peak_bytes: int = 0


def ask(address: str, server: psutil.Process, seconds: float) -> Seen:
    """Check for a while, one call after another, on one connection."""
    seen, over = Seen(), threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_S):
            seen.peak_bytes = max(seen.peak_bytes, server.memory_info().rss)

    sampling = threading.Thread(target=sample)
    sampling.start()
    question = check_request("user:maya", "read", "course:algebra")
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        check: Any = authorization_pb2_grpc.AuthorizationServiceStub(channel).Check
        end_at = time.monotonic() + seconds
        while (begun := time.monotonic()) < end_at:
            try:
                check(question, timeout=TIMEOUT_S)
                seen.codes["OK"] += 1
            except grpc.RpcError as error:
                seen.codes[error.code().name] += 1
            seen.took_ms.append((time.monotonic() - begun) * 1e3)
    over.set()
    sampling.join()
    return seen


@contextmanager
def attacked(name: str, address: str) -> Iterator[None]:
    """Attack while the block runs, from a process of its own, with low priority."""
    command = [sys.executable, "-m", "tests.bench.attacks", ATTACK, name, address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as attacker:
        assert attacker.stdin is not None and attacker.stdout is not None
        attacker.stdout.readline()
        yield
        attacker.stdin.close()


def attack(name: str, address: str) -> None:
    """Attack until the end of standard input."""
    os.nice(19)
    if name == IDLE_CONNECTIONS:
        idle = [http2.connect(address) for _ in range(IDLE)]
        for each in idle:
            each.sendall(http2.preface())
    with nullcontext() if name == IDLE_CONNECTIONS else http2.attacking(http2.ATTACKS[name], address):
        print(flush=True)
        sys.stdin.read()


def bench(transport: str, name: str, seconds: float) -> None:
    """Measure the honest client alone, then during the attack."""
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as folder:
        url = create_sqlite(Path(folder) / "authz.db")
        with serving(url, AUTHZ_TRANSPORT=transport) as (process, address):
            drain(process)
            server = psutil.Process(process.pid)
            ask(address, server, 0.5)
            calm = ask(address, server, seconds)
            with attacked(name, address):
                busy = ask(address, server, seconds)
    before, after = p99(calm.took_ms), p99(busy.took_ms)
    codes = ", ".join(f"{count} {code}" for code, count in busy.codes.items())
    memory = f"{calm.peak_bytes >> 20} to {busy.peak_bytes >> 20} MiB"
    show(f"{name}, {transport}: {codes}, {memory}", f"p99 {before:.1f} to {after:.1f} ms", "goal 3x")


def main(seconds: float = 6.0, names: Sequence[str] = ()) -> None:
    """Every attack over both transports."""
    for name in names or (*http2.ATTACKS, IDLE_CONNECTIONS):
        for transport in TRANSPORTS:
            bench(transport, name, seconds)


if __name__ == "__main__":
    if sys.argv[1:2] == [ATTACK]:
        attack(*sys.argv[2:])
    else:
        main(float(sys.argv[1]) if sys.argv[1:] else 6.0, sys.argv[2:])
