"""The operator bounds connections, their age, their calls and the size of headers, over both transports."""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz.client import CallError, Client, check_request
from authz.v1 import authorization_pb2_grpc
from tests.databases import create_sqlite
from tests.faults.http2 import SETTINGS, connect, preface
from tests.serving import drain, run, serving

GOAWAY = 7
MAX_CONCURRENT_STREAMS = 3
BOUNDS = {
    "AUTHZ_MAX_CONNECTIONS": "4",
    "AUTHZ_MAX_CONNECTION_AGE_S": "1",
    "AUTHZ_MAX_STREAMS": "7",
    "AUTHZ_MAX_HEADER_BYTES": "4096",
}


@pytest.fixture(scope="module", params=["grpc", "envoy"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with these bounds."""
    folder = tmp_path_factory.mktemp("connections")
    limits = folder / "limits.toml"
    limits.write_text("[each.reads]\nper_second = 0.01\n")
    given = {"AUTHZ_TRANSPORT": request.param, "AUTHZ_LIMITS_FILE": str(limits), **BOUNDS}
    with serving(create_sqlite(folder / "authz.db"), **given) as (process, found):
        drain(process)
        yield found


def frames(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """The kind and the payload of each frame, until the server closes the connection."""
    connection.settimeout(60)
    received = b""
    while True:
        while len(received) >= 9:
            size = int.from_bytes(received[:3], "big")
            if len(received) < 9 + size:
                break
            yield received[3], received[9 : 9 + size]
            received = received[9 + size :]
        try:
            more = connection.recv(65536)
        except ConnectionResetError:
            more = b""
        if not more:
            return
        received += more


def is_served(connection: socket.socket) -> bool:
    """Whether the server begins to speak HTTP/2."""
    try:
        connection.sendall(preface())
    except OSError:
        return False
    return next(frames(connection), (None, b""))[0] == SETTINGS


def code_of(address: str, header: str) -> grpc.StatusCode:
    """How a check with a long header ends."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        check: Any = authorization_pb2_grpc.AuthorizationServiceStub(channel).Check
        try:
            question = check_request("user:maya", "read", "course:a")
            check(question, metadata=(("x-long", header),), timeout=20, wait_for_ready=True)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def test_longer_headers_than_the_operator_allows_are_refused(address: str) -> None:
    assert code_of(address, "h" * 2000) is grpc.StatusCode.OK
    assert code_of(address, "h" * 6000) is not grpc.StatusCode.OK


def test_the_server_says_how_many_calls_a_connection_may_have_at_once(address: str) -> None:
    with closing(connect(address)) as connection:
        connection.sendall(preface())
        told = next(payload for kind, payload in frames(connection) if kind == SETTINGS)
        assert dict(struct.iter_unpack(">HI", told))[MAX_CONCURRENT_STREAMS] == 7


def test_connections_beyond_the_bound_are_closed_and_end_nobody_elses(address: str) -> None:
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(connect(address))) for _ in range(8)]
        # The server may not have noticed yet that those of other tests are closed.
        assert 0 < sum(map(is_served, opened)) <= 4
    assert code_of(address, "") is grpc.StatusCode.OK


def test_a_connection_that_is_too_old_is_asked_to_go(address: str) -> None:
    with closing(connect(address)) as connection:
        connection.sendall(preface())
        assert any(kind == GOAWAY for kind, _ in frames(connection))


def test_a_client_without_identity_that_connects_again_is_still_beyond_its_limit(address: str) -> None:
    with Client(address) as client:
        assert list(client.read_courses()) == []
    with Client(address) as client, pytest.raises(CallError, match=r"more than 0\.01 reads") as failure:
        list(client.read_courses())
    assert (failure.value.code, failure.value.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "LIMIT_EXCEEDED",
    )
    assert failure.value.retry_after_s > 1


def test_over_grpc_a_call_whose_request_never_arrives_ends_with_its_connection(tmp_path: Path) -> None:
    ages = {f"AUTHZ_MAX_{what}_S": "1" for what in ("CONNECTION_AGE", "WATCH", "IMPORT")}
    ended = threading.Event()

    def never() -> Iterator[bytes]:
        ended.wait()
        yield b""

    with (
        serving(create_sqlite(tmp_path / "authz.db"), AUTHZ_TRANSPORT="grpc", **ages) as (process, address),
        grpc.insecure_channel(address) as channel,
    ):
        drain(process)
        check: Any = channel.stream_unary("/authz.v1.AuthorizationService/Check")
        with pytest.raises(grpc.RpcError) as failure:
            check(never(), timeout=60)
        ended.set()
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "left"),
    [(64, 4096, 1000, 1256), (64, 600, 344, 600), (64, 64, 32, 64), (4096, 4096, 1000, 4096)],
)
def test_connections_leave_the_process_files_to_open(
    soft: int, hard: int, connections: int, left: int
) -> None:
    script = (
        "import resource, sys; from authz.runtime.tuning import connection_limit\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, tuple(map(int, sys.argv[1:])))\n"
        "print(connection_limit(1000), resource.getrlimit(resource.RLIMIT_NOFILE)[0], file=sys.stderr)"
    )
    done = run([sys.executable, "-c", script, str(soft), str(hard)])
    assert done.stderr.splitlines()[-1] == f"{connections} {left}"
    assert ("fewer connections than AUTHZ_MAX_CONNECTIONS" in done.stdout) is (connections < 1000)
