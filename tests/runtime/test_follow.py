"""A follower and servers that do not follow, each a process that something else supervises."""

from __future__ import annotations

import json
import shutil
import signal
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from authz.client import CallError, Client
from authz.domain.entities import MembershipFilter
from authz.domain.errors import InvalidArgumentError
from authz.domain.mutations import Mutation, Operation
from authz.runtime.bind import reserve
from authz.runtime.server import Server
from authz.runtime.settings import load_settings
from tests.forkserver import Process, without_settings
from tests.runtime.test_server import campus_of
from tests.runtime.test_supervise import ask, children
from tests.serving import over_grpc
from tests.waiting import until

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING


class Machine:
    """Processes of one machine, which share a database, a replica and an address."""

    def __init__(self, url: str, folder: Path, port: int) -> None:
        self.url = url
        self.address = f"127.0.0.1:{port}"
        self.replica = folder / "replica"
        self._folder = folder
        self._started: list[Process] = []
        self._environ = without_settings() | {
            "AUTHZ_ADDRESS": self.address,
            "AUTHZ_DATABASE_URL": url,
            "AUTHZ_REPLICA_DIR": str(self.replica),
            "AUTHZ_STOP_GRACE_S": "1",
        }

    def start(self, *arguments: str, **variables: str) -> Process:
        """Run `authz` with these arguments."""
        log = self._folder / f"{len(self._started)}.log"
        with log.open("wb") as file:
            process = Process(*arguments, environ=self._environ | variables, stderr=file.fileno())
        self._started.append(process)
        return process

    def log(self, process: Process) -> str:
        """What a process has logged."""
        return (self._folder / f"{self._started.index(process)}.log").read_text()

    def await_log(self, process: Process, text: str) -> None:
        """Wait until a process logs this."""
        until(lambda: text in self.log(process), f"not logged: {text}")

    def health(self, service: str = "") -> int | None:
        """The status of a server at the address; None when none answers."""
        with grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            with suppress(grpc.RpcError):
                status: int = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status
                return status
        return None

    def kill(self) -> None:
        """End all."""
        for process in self._started:
            process.kill()
            process.wait()


@pytest.fixture
def machine(sqlite_url: str, tmp_path: Path, free_port: int) -> Iterator[Machine]:
    """Nothing runs yet."""
    made = Machine(sqlite_url, tmp_path, free_port)
    yield made
    made.kill()


def stop(process: Process, number: int = signal.SIGTERM) -> int:
    """Signal a process; its exit code."""
    process.send_signal(number)
    return process.wait(60)


def answered(call: Callable[[], bool]) -> bool:
    """Whether a call is answered, and with yes."""
    try:
        return call()
    except (grpc.RpcError, CallError):
        return False


def test_servers_share_a_port_and_the_replica_of_one_follower(machine: Machine) -> None:
    follower = machine.start("follow")
    machine.await_log(follower, "replica built")
    servers = [machine.start("serve", "--no-follow") for _ in range(2)]
    for server in servers:
        machine.await_log(server, '"event":"serving"')
        assert "no fresh replica" not in machine.log(server)
    with Client(machine.address) as client:
        for number in range(3):
            client.write(campus_of(number))
            assert all(ask(machine.address, number) for _ in range(8))
    assert stop(servers[0]) == 0
    until(
        lambda: all(answered(lambda: ask(machine.address, 1)) for _ in range(8)), "the other does not serve"
    )
    with Client(machine.address) as client:
        (maya, *_) = (each.entity.key for each in client.read(MembershipFilter()))
        client.write([Mutation(Operation.DELETE, maya)])
    assert stop(servers[1]) == 0
    assert stop(follower) == 0
    assert '"event":"stopped"' in machine.log(follower)


@over_grpc
def test_a_server_that_does_not_follow_refuses_checks_until_a_follower_has_built_a_replica(
    machine: Machine,
) -> None:
    server = machine.start("serve", "--no-follow")
    machine.await_log(server, "no fresh replica yet, so checks are refused; run `authz follow`")
    until(lambda: machine.health() == NOT_SERVING, "no health")
    until(lambda: machine.health("grpc.health.v1.Health") == SERVING, "no sign of life")
    with Client(machine.address, timeout_s=15) as client, pytest.raises(CallError) as caught:
        client.check("user:maya", "read", "material:m1")
    assert caught.value.reason == "REPLICA_NOT_READY"
    told = [line for line in machine.log(server).splitlines() if "replica" in json.loads(line)["event"]]
    assert len(told) == 1
    assert "the replica is being built" not in machine.log(server)
    machine.start("follow")
    until(lambda: machine.health() == SERVING, "checks are not answered")
    with Client(machine.address) as client:
        client.write(campus_of(1))
        assert client.check("user:maya", "read", "material:m1").allowed


@over_grpc
def test_workers_that_do_not_follow_have_no_follower_of_their_own(machine: Machine) -> None:
    machine.start("follow")
    server = machine.start("serve", "--no-follow", "--workers", "2")
    until(lambda: machine.health() == SERVING, "checks are not answered")
    assert len(children(server)) == 2
    with Client(machine.address) as client:
        client.write(campus_of(1))
    assert all(ask(machine.address, 1) for _ in range(8))
    assert stop(server) == 0


async def test_a_port_is_shared_only_among_servers_that_do_not_follow(
    sqlite_url: str, tmp_path: Path, free_port: int
) -> None:
    def server(*, follow: bool) -> Server:
        given = {"address": f"127.0.0.1:{free_port}", "database_url": sqlite_url}
        folder = str(tmp_path / "r")
        return Server(load_settings({**given, "follow": follow, "replica_dir": folder}, environ={}))

    async with server(follow=False), server(follow=False):
        with pytest.raises(InvalidArgumentError, match="it is in use, or not an address"):
            await server(follow=True).__aenter__()
        with pytest.raises(InvalidArgumentError, match="cannot listen"):
            reserve(f"127.0.0.1:{free_port}")
    async with server(follow=True):
        with pytest.raises(InvalidArgumentError, match="only servers that run with `--no-follow` share it"):
            await server(follow=False).__aenter__()


@over_grpc
def test_of_two_followers_one_waits_and_takes_over(machine: Machine) -> None:
    first = machine.start("follow")
    machine.await_log(first, '"event":"following"')
    second = machine.start("follow")
    machine.await_log(second, "another process follows")
    machine.start("serve", "--no-follow")
    with Client(machine.address) as client:
        until(lambda: answered(lambda: bool(client.write(campus_of(1)))), "no server")
        first.kill()
        machine.await_log(second, '"event":"following"')
        client.write(campus_of(2))
    until(lambda: answered(lambda: ask(machine.address, 2)), "nobody follows")
    assert "replica built" not in machine.log(second)


def test_a_follower_ends_at_a_signal_and_says_why_it_cannot_start(machine: Machine, tmp_path: Path) -> None:
    refused = machine.start("follow", "--database", f"sqlite:///{tmp_path / 'no' / 'folder.db'}")
    assert refused.wait(60) == 2
    assert "there is no such folder" in machine.log(refused)
    nobody = machine.start("follow", "--database", "postgresql://nobody@127.0.0.1:1/none")
    assert nobody.wait(60) == 2
    assert "the database does not answer" in machine.log(nobody)
    assert "correct AUTHZ_DATABASE_URL" in machine.log(nobody)
    assert not machine.replica.exists() or not list(machine.replica.glob("[0-9]*"))
    follower = machine.start("follow")
    machine.await_log(follower, "replica built")
    follower.send_signal(signal.SIGHUP)
    assert stop(follower, signal.SIGINT) == 0


def test_a_follower_exports_metrics_also_of_a_replica_that_was_deleted_and_built_again(
    machine: Machine, free_port: int
) -> None:
    follower = machine.start("follow", "--metrics-address", machine.address)

    def metrics() -> dict[str, float]:
        with urllib.request.urlopen(f"http://{machine.address}/metrics", timeout=10) as answer:
            lines = [line for line in answer.read().decode().splitlines() if line[0] != "#"]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    machine.await_log(follower, "replica built")
    shutil.rmtree(machine.replica)
    until(lambda: machine.log(follower).count("replica built") == 2, "no new replica")

    def is_fresh() -> bool:
        return metrics()["authz_replica_staleness_seconds"] < 30

    until(is_fresh, "the metrics are those of the deleted folder")
    assert metrics()["authz_replica_revision"] == 1  # that of the first policy
    assert "authz_workers" not in metrics()


def test_a_command_over_a_database_follows_whatever_servers_do(machine: Machine) -> None:
    assert machine.start("migrate").wait(60) == 0
    question = ("check", "user:maya", "read", "material:m1", "--database", machine.url)
    asked = machine.start(*question, AUTHZ_FOLLOW="false")
    assert asked.wait(60) == 1
    assert machine.log(asked) == ""
