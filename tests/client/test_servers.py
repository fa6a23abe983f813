"""A client with several servers behind its target: one that refuses calls, or stops, does not fail them."""

from __future__ import annotations

import itertools
import re
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz.client import CallError, Client, CourseFilter, check_request, connection
from authz.client.errors import error_of
from authz.domain.entities import Course, CourseState
from authz.domain.mutations import Mutation, Operation
from authz.v1 import directory_pb2
from authz.v1.authorization_pb2_grpc import AuthorizationServiceStub
from authz.v1.directory_pb2_grpc import DirectoryServiceStub
from authz.wire.entities import mutation_message
from tests import forkserver
from tests.client.conftest import Connect
from tests.forkserver import Process, without_settings
from tests.serving import both_transports, drain, find_free_port, needs_envoy, served, serving
from tests.waiting import until

QUESTION = ("user:maya", "read", "course:algebra")
CALLS = 12
PAUSE_S = 0.005
WITHOUT_RETRIES = [("grpc.use_local_subchannel_pool", 1)]
"""What gRPC does without a retry policy, in every language: it sends a call again only if no server has
begun it, such as one that a GOAWAY overtakes."""


def reason_at(address: str) -> str:
    """Why a server, asked alone, does not answer a check; empty if it does."""
    with Client(address) as client:
        try:
            client.check(*QUESTION)
        except CallError as error:
            return error.reason
    return ""


@pytest.fixture
def campus(sqlite_url: str, tmp_path: Path) -> str:
    """A database with a course, which the machine `stale` has followed."""
    with machine(sqlite_url, tmp_path / "stale") as address, Client(address) as client:
        client.write([Mutation(Operation.CREATE, Course(id="algebra", state=CourseState.ACTIVE))])
    return sqlite_url


def machine(url: str, replica: Path, **settings: str) -> AbstractContextManager[str]:
    """The address of a server on a machine of its own."""
    return served(url, replica_dir=str(replica), **settings)


@pytest.mark.parametrize("turned", [False, True], ids=["first", "last"])
def test_a_machine_that_is_too_stale_fails_no_call(
    campus: str, tmp_path: Path, connect: Connect, *, turned: bool
) -> None:
    with (
        machine(campus, tmp_path / "stale", follow="false", max_staleness_s="0.5") as stale,
        machine(campus, tmp_path / "fresh") as fresh,
    ):
        until(lambda: reason_at(stale) == "TOO_STALE")
        addresses = [stale, fresh][:: -1 if turned else 1]
        with connect(f"ipv4:{','.join(addresses)}") as client:
            for _ in range(CALLS):
                assert client.check(*QUESTION).reason == "NOT_A_MEMBER"
                assert not list(client.list_resources("user:maya", "read"))
                assert len(list(client.read(CourseFilter()))) == 1
        assert reason_at(stale) == "TOO_STALE"


def test_the_service_config_of_the_guide_does_the_same_in_other_languages(
    campus: str, tmp_path: Path
) -> None:
    guide = (Path(__file__).parents[2] / "docs/clients.md").read_text()
    (config,) = re.findall(r"^```json\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    with (
        machine(campus, tmp_path / "stale", follow="false", max_staleness_s="0.5") as stale,
        machine(campus, tmp_path / "fresh") as fresh,
        grpc.insecure_channel(f"ipv4:{stale},{fresh}", [("grpc.service_config", config)]) as channel,
    ):
        until(lambda: reason_at(stale) == "TOO_STALE")
        for _ in range(CALLS):
            assert not AuthorizationServiceStub(channel).Check(check_request(*QUESTION), timeout=30).allowed


class Load:
    """Threads that make call after call, and what the calls that failed were told."""

    def __init__(self, *calls: Callable[[], object]) -> None:
        self.failed: list[Exception] = []
        self._made = [0 for _ in calls]
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._repeat, args=each) for each in enumerate(calls)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def await_calls(self) -> None:
        """Return once each thread has made some more."""
        before = [*self._made]
        until(lambda: all(made > begun + CALLS for made, begun in zip(self._made, before, strict=True)))

    def _repeat(self, number: int, call: Callable[[], object]) -> None:
        # Paused, so that the servers get their share of a small machine.
        while not self._ended.wait(PAUSE_S):
            try:
                call()
            except (CallError, grpc.RpcError) as error:
                self.failed.append(error)
            self._made[number] += 1


@contextmanager
def importing(address: str) -> Iterator[Any]:
    """An import that is in flight at a server, and silent."""
    ended = threading.Event()
    course = mutation_message(Mutation(Operation.TOUCH, Course(id="imported")))

    def messages() -> Iterator[directory_pb2.ImportRequest]:
        yield directory_pb2.ImportRequest(mutations=[course])
        ended.wait()

    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = DirectoryServiceStub(channel).Import.future(messages())
        with Client(address) as client:
            until(lambda: list(client.read(CourseFilter(ids=("imported",)))))
        try:
            yield call
        finally:
            ended.set()


@pytest.fixture
def two(sqlite_url: str, tmp_path: Path) -> Iterator[tuple[Process, str, str]]:
    """A server that a test may stop, its address, and that of another one."""
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                serving(sqlite_url, AUTHZ_REPLICA_DIR=str(tmp_path / name), AUTHZ_STOP_GRACE_S="4")
            )
            for name in ("stops", "stays")
        ]
        (process, stops), (_, stays) = running
        yield process, stops, stays


@both_transports
def test_a_server_that_stops_with_an_import_in_flight_fails_no_call(
    two: tuple[Process, str, str], connect: Connect
) -> None:
    process, *addresses = two
    target, numbers = f"ipv4:{','.join(addresses)}", itertools.count()
    with connect(target) as checker, connect(target) as writer, importing(addresses[0]) as imported:
        calls = (
            lambda: checker.check(*QUESTION),
            lambda: writer.write([Mutation(Operation.CREATE, Course(id=f"c{next(numbers)}"))]),
        )
        with Load(*calls) as load:
            load.await_calls()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            load.await_calls()
        assert error_of(imported.exception()).reason == "IMPORT_ENDED"
    assert load.failed == []


@needs_envoy  # grpc.aio sends nobody away
def test_a_server_that_stops_sends_clients_that_never_retry_to_another_one(
    two: tuple[Process, str, str],
) -> None:
    process, *addresses = two
    with (
        grpc.insecure_channel(f"ipv4:{','.join(addresses)}", WITHOUT_RETRIES) as channel,
        importing(addresses[0]) as imported,
    ):
        check = AuthorizationServiceStub(channel).Check
        with Load(lambda: check(check_request(*QUESTION), timeout=30)) as load:
            load.await_calls()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            load.await_calls()
        assert error_of(imported.exception()).reason == "IMPORT_ENDED"
    assert load.failed == []


@needs_envoy
def test_a_process_that_stops_sends_clients_to_one_that_shares_its_port(
    sqlite_url: str, tmp_path: Path
) -> None:
    address = f"127.0.0.1:{find_free_port()}"
    shared = {"AUTHZ_ADDRESS": address, "AUTHZ_REPLICA_DIR": str(tmp_path / "replica")}
    environ = without_settings() | shared | {"AUTHZ_DATABASE_URL": sqlite_url}
    with ExitStack() as stack:
        follower = Process("follow", environ=environ, stderr=subprocess.PIPE)
        stack.callback(follower.wait)
        stack.callback(follower.kill)
        drain(follower)
        processes = [
            stack.enter_context(serving(sqlite_url, AUTHZ_FOLLOW="false", **shared))[0] for _ in range(2)
        ]
        until(lambda: reason_at(address) == "")
        # The kernel distributes them among the processes.
        checks = [
            AuthorizationServiceStub(
                stack.enter_context(grpc.insecure_channel(address, WITHOUT_RETRIES))
            ).Check
            for _ in range(8)
        ]
        with Load(*(partial(check, check_request(*QUESTION), timeout=30) for check in checks)) as load:
            load.await_calls()
            processes[0].send_signal(signal.SIGTERM)
            assert processes[0].wait(30) == 0
            load.await_calls()
    assert load.failed == []


class Relay:
    """Passes bytes on to a server and back, until it falls silent as a host does that vanished."""

    def __init__(self, address: str) -> None:
        self._host, port = address.rsplit(":", 1)
        self._port = int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._is_silent = threading.Event()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def fall_silent(self) -> None:
        """Pass nothing on any more, and close no connection."""
        self._is_silent.set()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection((self._host, self._port))
            self._start(partial(self._pass_on, client, server))
            self._start(partial(self._pass_on, server, client))

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while (data := source.recv(65536)) and not self._is_silent.is_set():
                target.sendall(data)
        if not self._is_silent.is_set():
            target.close()

    @staticmethod
    def _start(run: Callable[[], None]) -> None:
        threading.Thread(target=run, daemon=True).start()


@pytest.mark.skipif(forkserver.TRANSPORT == "envoy", reason="Envoy takes no interval between pings")
def test_a_server_whose_host_vanished_fails_no_call(
    campus: str, tmp_path: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_PING_INTERVAL_MS", 500)
    monkeypatch.setattr(connection, "_PING_TIMEOUT_MS", 500)
    with (
        machine(campus, tmp_path / "vanished", min_ping_interval_s="0.1") as vanished,
        machine(campus, tmp_path / "stays", min_ping_interval_s="0.1") as stays,
    ):
        relay = Relay(vanished)
        with connect(f"ipv4:{relay.address},{stays}") as client:
            for _ in range(CALLS):
                assert client.check(*QUESTION).reason == "NOT_A_MEMBER"
            relay.fall_silent()
            for _ in range(CALLS):
                assert client.check(*QUESTION).reason == "NOT_A_MEMBER"


class Dns:
    """A server of DNS that answers every name with the same addresses of IPv4."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._answer_forever, daemon=True).start()

    def _answer_forever(self) -> None:
        while True:
            query, peer = self._socket.recvfrom(512)
            end = query.index(b"\0", 12) + 5
            hosts = self.hosts if query[end - 4 : end - 2] == b"\0\1" else ()
            head = query[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, len(hosts), 0, 0)
            records = (
                b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + socket.inet_aton(host) for host in hosts
            )
            self._socket.sendto(head + query[12:end] + b"".join(records), peer)


def test_a_client_finds_the_servers_that_have_replaced_all_that_it_knows(
    campus: str, tmp_path: Path, connect: Connect
) -> None:
    dns, port = Dns("127.0.0.1"), find_free_port()
    with connect(f"dns://{dns.address}/authz.test:{port}") as client:
        with machine(campus, tmp_path / "old", address=f"127.0.0.1:{port}"):
            assert client.check(*QUESTION).reason == "NOT_A_MEMBER"
        with machine(campus, tmp_path / "new", address=f"127.0.0.2:{port}"):
            dns.hosts = ("127.0.0.2",)

            def is_answered() -> bool:
                with suppress(CallError):
                    return client.check(*QUESTION).reason == "NOT_A_MEMBER"
                return False

            until(is_answered, timeout_s=15)
