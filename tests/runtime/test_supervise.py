"""Many workers: one port, one replica, one follower; whoever dies is replaced, and SIGTERM drains all."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import psutil
import pytest

from authz.client import CallError, Client, check_request
from authz.domain.entities import MembershipFilter, MembershipKey
from authz.domain.mutations import Mutation, Operation
from authz.v1.authorization_pb2_grpc import AuthorizationServiceStub
from tests.forkserver import Process, run
from tests.runtime.test_server import campus_of
from tests.serving import drain, over_grpc, serving
from tests.waiting import until


def children(process: Process) -> list[psutil.Process]:
    """The serving processes and the follower: what the process that forks them has forked."""
    with suppress(psutil.NoSuchProcess):
        return [
            child
            for forker in psutil.Process(process.pid).children()
            for child in forker.children()
            if child.status() != psutil.STATUS_ZOMBIE
        ]
    return []


def alive(family: list[psutil.Process]) -> bool:
    """Whether any of them still runs."""
    with suppress(psutil.NoSuchProcess):
        return any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in family)
    return False


def ask(address: str, number: int, *, options: tuple[tuple[str, int], ...] = ()) -> bool:
    """One check over a connection of its own, which any of the workers may get."""
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1), *options]) as channel:
        request = check_request("user:maya", "read", f"material:m{number}")
        return bool(AuthorizationServiceStub(channel).Check(request, timeout=10).allowed)


@over_grpc
def test_every_worker_sees_a_write_once_it_is_acknowledged(store_url: str) -> None:
    with serving(store_url, AUTHZ_WORKERS="2") as (process, address), Client(address) as client:
        assert len(children(process)) == 3
        for number in range(5):
            client.write(campus_of(number))
            assert all(ask(address, number) for _ in range(8))


def test_whoever_is_killed_is_replaced(sqlite_url: str) -> None:
    with serving(sqlite_url, AUTHZ_WORKERS="2") as (process, address):
        with Client(address) as client:
            client.write(campus_of(1))
        for number, victim in enumerate(children(process)):
            victim.kill()

            def replaced(gone: psutil.Process = victim) -> bool:
                now = children(process)
                return gone not in now and len(now) == 3

            until(replaced, "the process was not replaced")

            def served(number: int = number) -> bool:
                try:
                    with Client(address) as client:
                        client.write(campus_of(10 + number))
                    return ask(address, 10 + number)
                except (CallError, grpc.RpcError):
                    return False

            until(served, "the service did not come back")


def metrics(address: str) -> dict[str, float]:
    """What is exported, by its name and labels."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line[0] != "#"]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_hangup_ends_nothing_and_sigterm_all_of_them(sqlite_url: str, workers: str) -> None:
    with serving(sqlite_url, AUTHZ_WORKERS=workers) as (process, address):
        with Client(address) as client:
            client.write(campus_of(1))
        family = children(process)
        for each in (psutil.Process(process.pid), *family):
            each.send_signal(signal.SIGHUP)
        assert all(ask(address, 1) for _ in range(8))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert not alive(family)
        assert process.stderr is not None
        assert '"event":"stopped"' in process.stderr.readlines()[-1]


def test_the_end_of_the_supervisor_is_the_end_of_all(sqlite_url: str) -> None:
    with serving(sqlite_url, AUTHZ_WORKERS="2") as (process, _):
        family = children(process)
        process.kill()
        until(lambda: not alive(family), "somebody is left")


@over_grpc
def test_a_port_that_is_taken_is_not_shared(sqlite_url: str, tmp_path: Path) -> None:
    with serving(sqlite_url, AUTHZ_WORKERS="2") as (_, address):
        database = f"sqlite:///{tmp_path / 'other.db'}"
        ended = run("serve", "--workers", "2", "--address", address, "--database", database)
        assert ended.returncode == 2
        assert f"cannot listen at `{address}`" in ended.stderr


def served_alike(address: str, allowed: bool) -> bool:
    """Whether every worker answers so."""
    try:
        return all(ask(address, 1) is allowed for _ in range(16))
    except grpc.RpcError:
        return False


def follower(family: list[psutil.Process]) -> psutil.Process:
    """The one that listens at no port, once all the others do."""
    until(lambda: sum(not listens(child) for child in family) == 1, "not all workers listen")
    return next(child for child in family if not listens(child))


def worker(family: list[psutil.Process]) -> psutil.Process:
    """One that serves."""
    return next(child for child in family if listens(child))


def listens(process: psutil.Process) -> bool:
    """Whether it takes connections."""
    return any(connection.status == psutil.CONN_LISTEN for connection in process.net_connections())


@over_grpc
def test_a_process_that_cannot_be_started_is_started_later(sqlite_url: str) -> None:
    with serving(sqlite_url, AUTHZ_WORKERS="2") as (process, _):
        until(lambda: len(children(process)) == 3, "not all have started")
        supervisor = psutil.Process(process.pid)
        limits = supervisor.rlimit(psutil.RLIMIT_NOFILE)
        supervisor.rlimit(psutil.RLIMIT_NOFILE, (3, limits[1]))
        follower(children(process)).kill()
        assert process.stderr is not None
        assert any("process not started" in line for line in process.stderr)
        supervisor.rlimit(psutil.RLIMIT_NOFILE, limits)
        until(lambda: len(children(process)) == 3, "the follower was not started again")


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary folders, whose path leaves room for the sockets of multiprocessing."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@over_grpc
def test_a_cleaner_leaves_the_temporary_folders_of_a_server_alone(
    sqlite_url: str, temporary: Path, free_port: int
) -> None:
    variables = {"TMPDIR": str(temporary), "AUTHZ_METRICS_ADDRESS": f"127.0.0.1:{free_port}"}
    with serving(sqlite_url, AUTHZ_WORKERS="2", **variables):
        folders = list(temporary.iterdir())
        assert {each.name.partition("-")[0] for each in folders} == {"authz", "pymp"}
        for each in folders:
            require_locked(each)


def require_locked(folder: Path) -> None:
    """systemd-tmpfiles cleans no folder of which it does not get this lock."""
    descriptor = os.open(folder, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


@over_grpc
def test_processes_are_replaced_after_the_folder_of_their_counts_was_deleted(
    sqlite_url: str, temporary: Path, free_port: int
) -> None:
    variables = {"TMPDIR": str(temporary), "AUTHZ_METRICS_ADDRESS": f"127.0.0.1:{free_port}"}
    with serving(sqlite_url, AUTHZ_WORKERS="2", **variables) as (process, address), Client(address) as client:
        drain(process)
        (counts,) = temporary.glob("authz-metrics-*")
        shutil.rmtree(counts)
        before = children(process)
        for each in before:
            each.kill()
        psutil.wait_procs(before)
        until(lambda: len(children(process)) == len(before), "not all were replaced")
        until(lambda: written(client), "no worker serves")
        assert "rpc_server_call_duration_seconds_count" in scraped(free_port)


def written(client: Client) -> bool:
    """Whether a campus could be written."""
    try:
        client.write(campus_of(1))
    except CallError:
        return False
    return True


def scraped(port: int) -> str:
    """The metrics of a server."""
    return str(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20).read().decode())


@over_grpc
def test_a_replica_deleted_together_with_its_follower_is_left_for_the_new_one(
    sqlite_url: str, tmp_path: Path
) -> None:
    # Of such a bound that nobody looks anew for being too stale.
    with (
        serving(sqlite_url, AUTHZ_WORKERS="2", AUTHZ_MAX_STALENESS_S="600") as (process, address),
        Client(address) as client,
    ):
        client.write(campus_of(1))
        assert all(ask(address, 1) for _ in range(16))
        follower(children(process)).kill()
        shutil.rmtree(tmp_path / "authz.db.replica")
        (maya,) = (each.entity.key for each in client.read(MembershipFilter()))
        until(lambda: revoked(client, maya), "the revocation was not taken")
        until(lambda: served_alike(address, allowed=False), "maya still reads")


def revoked(client: Client, key: MembershipKey) -> bool:
    """Whether a membership could be deleted."""
    try:
        client.write([Mutation(Operation.DELETE, key)])
    except CallError:
        return False
    return True


def policies_of(pid: int) -> set[int]:
    """How the threads of a process are scheduled."""
    found = set[int]()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):  # it ended since
            found.add(os.sched_getscheduler(int(thread.name)))
    return found


@pytest.mark.parametrize(
    ("workers", "batch", "transport"),
    [("1", "true", "envoy"), ("2", "true", "envoy"), ("2", "false", "grpc")],
)
def test_staleness_is_exported_and_who_answers_is_scheduled_as_batch_if_the_operator_says_so(
    sqlite_url: str, workers: str, batch: str, transport: str, free_port: int
) -> None:
    variables = {"AUTHZ_WORKERS": workers, "AUTHZ_METRICS_ADDRESS": f"127.0.0.1:{free_port}"}
    variables |= {"AUTHZ_SCHEDULE_AS_BATCH": batch, "AUTHZ_TRANSPORT": transport}
    with serving(sqlite_url, **variables) as (process, address):
        with Client(address) as client:
            client.write(campus_of(1))
        lines = metrics(f"127.0.0.1:{free_port}")
        assert lines["authz_replica_revision"] == 2  # the first policy, and the campus
        assert 0 <= lines["authz_replica_staleness_seconds"] < 30
        assert lines["authz_replica_behind"] == 0
        assert lines["authz_workers"] == int(workers)
        answering = [process.pid] if workers == "1" else [child.pid for child in children(process)]
        batched = [policies_of(pid) for pid in answering]
        # With every thread; of several processes, all but the follower.
        assert batched.count({os.SCHED_BATCH}) == (int(workers) if batch == "true" else 0)
