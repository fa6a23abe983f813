"""A stop answers what is in flight and sends what comes later elsewhere, and nothing holds it up."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from authz.client import CallError, Client, check_request
from authz.client.errors import error_of
from authz.domain.entities import Course, CourseFilter
from authz.v1 import directory_pb2
from authz.v1.authorization_pb2_grpc import AuthorizationServiceStub
from authz.v1.directory_pb2_grpc import DirectoryServiceStub
from authz.wire.entities import mutation_message
from tests.forkserver import AUTHZ, Process, without_settings
from tests.runtime.test_server import campus_of
from tests.serving import both_transports, find_free_port, served, serving
from tests.store.directory import open_with, touch, write
from tests.tokens import moved

QUESTION = check_request("user:maya", "read", "material:m1")


def ask_until_refused(address: str, codes: Counter[str]) -> None:
    """Ask one question after the other, without trying again, and count how the last one ended."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        check = AuthorizationServiceStub(channel).Check
        try:
            while True:
                check(QUESTION, timeout=10)
                codes["OK"] += 1
        except grpc.RpcError as error:
            codes[error_of(error).code.name] += 1


@pytest.mark.parametrize("workers", ["1", "2"])
def test_callers_at_a_stop_are_told_to_try_elsewhere_and_never_that_they_gave_up(
    sqlite_url: str, workers: str
) -> None:
    codes: Counter[str] = Counter()
    with serving(sqlite_url, AUTHZ_WORKERS=workers) as (process, address):
        callers = [threading.Thread(target=ask_until_refused, args=(address, codes)) for _ in range(8)]
        for caller in callers:
            caller.start()
        while codes["OK"] < 200:
            callers[0].join(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        for caller in callers:
            caller.join()
    assert set(codes) == {"OK", "UNAVAILABLE"}


def test_writers_at_a_stop_know_what_was_written(sqlite_url: str) -> None:
    acknowledged: list[int] = []

    def write_until_refused(first: int) -> None:
        with Client(address) as client, suppress(CallError):
            for number in range(first, first + 100_000):
                client.write(campus_of(number))
                acknowledged.append(number)

    with serving(sqlite_url) as (process, address):
        writers = [threading.Thread(target=write_until_refused, args=(n * 100_000,)) for n in range(4)]
        for writer in writers:
            writer.start()
        while len(acknowledged) < 20:
            writers[0].join(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        for writer in writers:
            writer.join()
    with served(sqlite_url) as address, Client(address) as client:
        courses = {each.entity.id for each in client.read(CourseFilter())}
    # A write that was in flight has its answer: there is none without.
    assert courses == {f"c{number}" for number in acknowledged}


@pytest.mark.parametrize("pause_s", [0.01, 600], ids=["goes on", "is silent"])
def test_an_import_at_a_stop_is_told_what_it_has_written(sqlite_url: str, pause_s: float) -> None:
    sent, stopped = threading.Event(), threading.Event()

    def messages() -> Iterator[directory_pb2.ImportRequest]:
        for number in range(100_000):
            course = mutation_message(touch(Course(id=f"c{number}")))
            yield directory_pb2.ImportRequest(mutations=[course])
            sent.set()
            if stopped.wait(pause_s):
                return

    with serving(sqlite_url, AUTHZ_STOP_GRACE_S="4") as (process, address):
        with grpc.insecure_channel(address) as channel:
            importing = DirectoryServiceStub(channel).Import.future(messages())
            assert sent.wait(30)
            while not numbered_courses(address):
                pass
            process.send_signal(signal.SIGTERM)
            error = error_of(importing.exception(60))
            stopped.set()
        assert process.wait(30) == 0
    assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "IMPORT_ENDED")
    with served(sqlite_url) as address:
        written = numbered_courses(address)
    assert error.message.startswith("the server is stopping; import the rest again")
    assert f"written {written}, " in error.message


def numbered_courses(address: str) -> int:
    with Client(address) as client:
        return sum(1 for _ in client.read(CourseFilter()))


@both_transports
def test_while_a_call_is_in_flight_every_connection_gets_an_answer(sqlite_url: str) -> None:
    with (
        serving(sqlite_url, AUTHZ_STOP_GRACE_S="600", AUTHZ_FRESHNESS_TIMEOUT_S="600") as (process, address),
        ExitStack() as stack,
    ):
        channels = [
            stack.enter_context(grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]))
            for _ in range(8)
        ]
        token = stack.enter_context(Client(address)).write(campus_of(1))
        first, *others = map(AuthorizationServiceStub, channels)
        request = check_request("user:maya", "read", "material:m1")
        # A state that is one write ahead keeps the call waiting until there is one.
        request.consistency.at_least_as_fresh.token = moved(sqlite_url, token, 1)
        waiting = first.Check.future(request, timeout=60)
        for each in (*[first] * 20, *others):  # by then the server has begun with the one before
            assert each.Check(QUESTION, timeout=60).allowed
        statuses = health_pb2_grpc.HealthStub(channels[0]).Watch(health_pb2.HealthCheckRequest())
        assert next(statuses).status == health_pb2.HealthCheckResponse.SERVING
        process.send_signal(signal.SIGTERM)
        assert next(statuses).status == health_pb2.HealthCheckResponse.NOT_SERVING
        for each in others:
            assert each.Check(QUESTION, timeout=60).allowed
        assert not waiting.done()
        with closing(open_with(sqlite_url)) as store:
            write(store, touch(Course(id="later")))
        assert waiting.result().allowed
        assert process.wait(30) == 0


def test_a_client_that_watches_health_learns_of_the_stop_and_does_not_hold_it(sqlite_url: str) -> None:
    with (
        serving(sqlite_url, AUTHZ_STOP_GRACE_S="600") as (process, address),
        grpc.insecure_channel(address) as channel,
    ):
        statuses = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(statuses).status == health_pb2.HealthCheckResponse.SERVING
        process.send_signal(signal.SIGTERM)
        assert next(statuses).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert process.wait(60) == 0


@pytest.fixture
def silent_database() -> Iterator[socket.socket]:
    """A port where connections are taken and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        yield listener


def in_a_container() -> list[str]:
    """The command that runs another as process 1 of its own namespace."""
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("needs the right to make a namespace of processes")
    return command


@pytest.fixture
def starting(silent_database: socket.socket, tmp_path: Path) -> dict[str, str]:
    """The variables of a process that does not get further than its database."""
    return without_settings() | {
        "AUTHZ_ADDRESS": f"127.0.0.1:{find_free_port()}",
        "AUTHZ_DATABASE_URL": f"postgresql://authz@127.0.0.1:{silent_database.getsockname()[1]}/authz",
        "AUTHZ_REPLICA_DIR": str(tmp_path / "replica"),
    }


COMMANDS = (["serve"], ["serve", "--workers", "2"], ["follow"])


@pytest.mark.parametrize("command", COMMANDS)
def test_sigterm_during_the_start_ends_it(
    silent_database: socket.socket, starting: dict[str, str], command: list[str]
) -> None:
    started = Process(*command, environ=starting, stderr=subprocess.PIPE)
    connection, _ = silent_database.accept()
    started.send_signal(signal.SIGTERM)
    with connection:
        assert started.wait(60) == 0
    assert started.stderr is not None
    assert "Traceback" not in started.stderr.read()


@pytest.mark.parametrize("transport", ["auto", "grpc"])
def test_sigterm_ends_a_start_that_waits_for_the_keys_of_jwts(
    silent_database: socket.socket, sqlite_url: str, starting: dict[str, str], transport: str
) -> None:
    issuer = f"https://127.0.0.1:{silent_database.getsockname()[1]}/keys"
    jwts = {"AUTHZ_JWT_ISSUER": "x", "AUTHZ_JWT_AUDIENCE": "authz", "AUTHZ_JWT_JWKS_URL": issuer}
    given = {"AUTHZ_DATABASE_URL": sqlite_url, "AUTHZ_TRANSPORT": transport}
    started = Process("serve", environ=starting | jwts | given, stderr=subprocess.PIPE)
    connection, _ = silent_database.accept()
    started.send_signal(signal.SIGTERM)
    with connection:
        assert started.wait(60) == 0
    assert started.stderr is not None
    assert "keys of JWTs not refreshed" not in started.stderr.read()  # it did not wait for an answer


@pytest.mark.parametrize("command", COMMANDS)
def test_sigterm_during_the_start_ends_process_1_of_a_container(
    silent_database: socket.socket, starting: dict[str, str], command: list[str]
) -> None:
    started = subprocess.Popen([*in_a_container(), AUTHZ, *command], env=starting, stderr=subprocess.PIPE)
    connection, _ = silent_database.accept()
    (contained,) = psutil.Process(started.pid).children()
    contained.send_signal(signal.SIGTERM)
    with connection:
        _, log = started.communicate(timeout=60)
    assert (started.returncode, b"Traceback" in log) == (0, False)


def test_ctrl_c_during_the_start_of_workers_ends_all_processes_without_a_traceback(
    silent_database: socket.socket, tmp_path: Path
) -> None:
    given = [f"--address=127.0.0.1:{find_free_port()}", f"--replica-dir={tmp_path}/replica", "--workers=2"]
    url = f"postgresql://authz@127.0.0.1:{silent_database.getsockname()[1]}/authz"
    command = [str(AUTHZ), "serve", *given, f"--database={url}"]
    # The terminal sends the signal to every process of the session.
    started = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    connection, _ = silent_database.accept()  # while the fork server imports
    os.killpg(started.pid, signal.SIGINT)
    _, log = started.communicate(timeout=60)  # once every process has closed it
    connection.close()
    assert (started.returncode, b"Traceback" in log) == (0, False)


def test_a_fork_server_whose_supervisor_has_ended_says_nothing(tmp_path: Path) -> None:
    variables = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "deleted")}
    command = [sys.executable, "-c", "import authz.runtime.preloaded"]
    done = subprocess.run(command, env=variables, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


STOPPED_WHILE_IMPORTING = """
import signal, sys

class Stopping:
    def find_spec(self, name, *_):
        if name == "authz.cli.main":
            try:
                signal.raise_signal(signal.SIGTERM)
            except BaseException:  # as code in C that imports
                pass

sys.meta_path.insert(0, Stopping())
"""


@pytest.mark.parametrize("command", ["serve", "follow"])
def test_sigterm_in_an_import_that_swallows_exceptions_ends_the_start(tmp_path: Path, command: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(STOPPED_WHILE_IMPORTING)
    given = [f"--database=sqlite:///{tmp_path}/authz.db", f"--replica-dir={tmp_path}/replica"]
    variables = os.environ | {"PYTHONPATH": str(tmp_path), "AUTHZ_ADDRESS": f"127.0.0.1:{find_free_port()}"}
    started = subprocess.run([AUTHZ, command, *given], env=variables, timeout=60, check=False)
    assert (started.returncode, (tmp_path / "authz.db").exists()) == (0, False)
