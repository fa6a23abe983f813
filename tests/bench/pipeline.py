"""Print what a call costs between a transport and the answer: the ASGI application, without Envoy.

python -m tests.bench.pipeline [memberships] [rounds]
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from authz.api.asgi.framing import prefixed
from authz.api.asgi.server import AsgiServer
from authz.client import check_request
from authz.runtime.faces import AsgiFace
from authz.runtime.logs import configure_logging
from authz.runtime.server import Server
from authz.runtime.settings import Settings
from authz.v1 import authorization_pb2 as apb
from tests.bench.campus import Campus
from tests.bench.measure import show
from tests.callers import grant
from tests.issuer import Issuer, bearer

BATCH = 100
ROUNDS = 15
CALLER = "service:bench"
_SERVICE = "/authz.v1.AuthorizationService/"


class Exchange:
    """A call as Envoy hands it over: the whole request in one event."""

    def __init__(self, message: bytes) -> None:
        self._event = {"type": "http.request", "body": prefixed(message), "more_body": False}
        self.answer = b""

    async def receive(self) -> Mapping[str, Any]:
        """The request."""
        return self._event

    async def send(self, event: Mapping[str, Any]) -> None:
        """Keep the answer."""
        self.answer += event.get("body", b"")


class Case(msgspec.Struct, frozen=True):
    """What is asked of a server; each call asks `questions`."""

    server: AsgiServer
    scope: Mapping[str, Any]
    next_message: Callable[[], bytes]
    calls: int
    in_flight: int
    questions: int = 1

    async def used_us(self) -> float:
        """Microseconds of processor for a question, with many calls in flight as under load."""
        left = itertools.count()

        async def keep_asking() -> None:
            while next(left) < self.calls:
                exchange = Exchange(self.next_message())
                # A task for each call, as under Envoy.
                await asyncio.create_task(self.server(self.scope, exchange.receive, exchange.send))
                assert exchange.answer, "the call failed"

        begun_s = time.thread_time()
        await asyncio.gather(*(keep_asking() for _ in range(self.in_flight)))
        return (time.thread_time() - begun_s) / self.calls / self.questions * 1e6


def scope_of(method: str, headers: Sequence[tuple[str, str]] = ()) -> Mapping[str, Any]:
    """A call with a deadline, as most clients send it."""
    path = _SERVICE + method
    usual = [("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "grpc-go/1.76.0")]
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "client": ("127.0.0.1", 50_000),
        "headers": [
            (name.encode(), value.encode()) for name, value in (*usual, ("grpc-timeout", "60S"), *headers)
        ],
    }


async def bench(folder: Path, size: int, rounds: int) -> None:
    """One server that lets in everybody and one that verifies, asked in turns."""
    campus, issuer = Campus(size), Issuer()
    url = campus.fill_sqlite(folder / "bench.db")
    grant(url, {CALLER: "checker"})
    checks = [check_request(*ids) for ids in campus.questions(10_000)]
    batches = [apb.BatchCheckRequest(items=checks[n : n + BATCH]) for n in range(0, len(checks), BATCH)]
    check = itertools.cycle([each.SerializeToString() for each in checks]).__next__
    batch = itertools.cycle([each.SerializeToString() for each in batches]).__next__
    lets_in = Settings(database_url=url, transport="envoy")
    accepts: dict[str, Any] = {**issuer.settings(folder)}
    verifies = Settings(database_url=url, transport="envoy", follow=False, **accepts)
    faces = AsgiFace(lets_in), AsgiFace(verifies)
    async with Server(lets_in, face=faces[0]), Server(verifies, face=faces[1]):
        signed = scope_of("Check", bearer(issuer.jwt("bench")))
        cases = {
            "Check": Case(faces[0].server, scope_of("Check"), check, 2_000, 80),
            "Check with a JWT": Case(faces[1].server, signed, check, 2_000, 80),
            "a question of a BatchCheck of 100": Case(
                faces[0].server, scope_of("BatchCheck"), batch, 100, 16, BATCH
            ),
        }
        used_us: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(rounds):
            for name, case in cases.items():
                used_us[name].append(await case.used_us())
    for name, each in used_us.items():
        show(f"in process: {name}", f"{statistics.median(each):.1f} us, least {min(each):.1f} us")


def main(size: int = 10_000, rounds: int = ROUNDS) -> None:
    """Over one SQLite database of a campus."""
    configure_logging("error")
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as folder:
        uvloop.run(bench(Path(folder), size, rounds))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
