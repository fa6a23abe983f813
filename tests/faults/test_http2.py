"""One client that abuses HTTP/2 takes neither the calls of the others nor the memory of the server."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from authz.client import Client
from tests.databases import create_sqlite
from tests.faults import http2
from tests.serving import drain, serving

GROWTH_BYTES = 96 << 20
NEEDS_ENVOY = ("rapid reset", "endless headers", "pings")
IDLE = 1000


@pytest.fixture(scope="module", params=["grpc", "envoy"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, psutil.Process]]:
    """A server over each transport, and its process."""
    url = create_sqlite(tmp_path_factory.mktemp("http2") / "authz.db")
    with serving(url, AUTHZ_TRANSPORT=request.param) as (process, address):
        drain(process)
        ask(address, 200)
        yield address, psutil.Process(process.pid)


def ask(address: str, times: int) -> None:
    """Check and read as an honest client, which does not try again. Raises what a call ends with."""
    with Client(address, timeout_s=60) as client:
        for _ in range(times):
            assert not client.check("user:maya", "read", "course:algebra").allowed
        assert list(client.read_courses()) == []


@pytest.mark.parametrize("name", http2.ATTACKS)
def test_an_attack_costs_no_call_and_little_memory(server: tuple[str, psutil.Process], name: str) -> None:
    address, process = server
    if name in NEEDS_ENVOY and not process.name().startswith("envoy"):
        pytest.skip("grpc.aio lets the others wait for seconds, or takes gigabytes")
    before = process.memory_info().rss
    with http2.attacking(http2.ATTACKS[name], address) as once:
        ask(address, 100)
        once.wait(30)
        ask(address, 10)
    assert process.memory_info().rss < before + GROWTH_BYTES


def test_idle_connections_keep_nobody_out(server: tuple[str, psutil.Process]) -> None:
    address, process = server
    before = process.memory_info().rss
    idle = [http2.connect(address) for _ in range(IDLE)]
    for each in idle:
        each.sendall(http2.preface())
    ask(address, 50)
    assert process.memory_info().rss < before + GROWTH_BYTES
    for each in idle:
        each.close()
