"""The service behind Envoy: what its clients and its operator see is what grpc.aio gives them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from authz.client import CallError, Client, check_request
from authz.client.errors import error_of
from authz.domain.entities import Course
from authz.domain.mutations import Mutation, Operation
from authz.v1 import authorization_pb2_grpc, directory_pb2, directory_pb2_grpc
from tests.access.certificates import channel_credentials
from tests.callers import grant
from tests.databases import create_sqlite
from tests.forkserver import AUTHZ, Process, without_settings
from tests.runtime.test_mutual_tls import certify
from tests.serving import drain, needs_envoy, run, serving

pytestmark = needs_envoy
QUESTION = check_request("user:maya", "read", "course:algebra")
CHECK = "/authz.v1.AuthorizationService/Check"
READ = "/authz.v1.DirectoryService/ReadCourses"
ENVOY = {"AUTHZ_TRANSPORT": "envoy"}


@pytest.fixture(scope="module")
def address(shared_sqlite_url: str) -> Iterator[str]:
    """One server for this file."""
    with serving(shared_sqlite_url, **ENVOY) as (process, found):
        drain(process)
        yield found


def refusal(address: str, method: str, body: bytes) -> CallError:
    """The error that a call of raw bytes ends with."""
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
        call: Any = channel.unary_unary(method)
        call(body, timeout=60)
    return error_of(caught.value)


def test_writes_checks_imports_and_watches_work_as_ever(address: str) -> None:
    course = Mutation(Operation.TOUCH, Course(id="algebra"))
    with Client(address) as client:
        begun = client.current_token()
        client.write([course])
        watch = client.watch(after=begun)
        assert next(watch).mutations == (course,)
        assert client.import_mutations([course] * 3000).unchanged == 3000
        watch.close()
        assert [each.entity.id for each in client.read_courses()] == ["algebra"]
        assert not client.check("user:maya", "read", "course:algebra").allowed


def test_health_and_reflection_are_served(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service="nobody"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        names = ProtoReflectionDescriptorDatabase(channel).get_services()
        assert "authz.v1.AuthorizationService" in names


@pytest.mark.parametrize("compression", list(grpc.Compression))
def test_compressed_questions_are_read(address: str, compression: grpc.Compression) -> None:
    with grpc.insecure_channel(address, compression=compression) as channel:
        answer = authorization_pb2_grpc.AuthorizationServiceStub(channel).Check(QUESTION)
    assert not answer.allowed


@pytest.mark.parametrize("path", ["/authz.v1.AuthorizationService/Chekc", "/%ff", f"{CHECK}%ff", "/é"])
def test_a_method_that_is_unknown_is_refused_however_it_is_spelled(address: str, path: str) -> None:
    unknown = refusal(address, path, b"")
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNKNOWN_METHOD")
    assert unknown.message.startswith("the server has no such method")


def test_what_cannot_be_served_is_refused_by_its_code(address: str) -> None:
    large = refusal(address, READ, bytes(5_000_000))
    assert large.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "AUTHZ_MAX_MESSAGE_BYTES" in large.message
    malformed = refusal(address, CHECK, b"\xff")
    assert (malformed.code, malformed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_FIELD")


def test_large_answers_arrive_whole(address: str) -> None:
    with Client(address) as client:
        client.import_mutations([Mutation(Operation.TOUCH, Course(id=f"c{n:05}")) for n in range(3000)])
        found = {each.entity.id for each in client.read_courses()}
        assert len(found - {"algebra"}) == 3000


@pytest.mark.parametrize(("workers", "listens_at"), [("1", "unix:here.sock"), ("2", "127.0.0.1:0")])
def test_nothing_is_imported_from_the_folder_that_a_server_is_started_in(
    tmp_path: Path, workers: str, listens_at: str
) -> None:
    marker = tmp_path / "imported"
    planted = f"from pathlib import Path\nPath({str(marker)!r}).touch()\n"
    for name in ("authz", "lmdb", "pyvoy", "uvloop", "grpc", "json", "signal", "selectors"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(planted)
    variables = {"AUTHZ_WORKERS": workers, "AUTHZ_ADDRESS": listens_at, **ENVOY}
    variables |= {"AUTHZ_DATABASE_URL": "sqlite:///here.db"}
    # The installed script: `Process` would fork it, and its workers, from a process that has imported all.
    with subprocess.Popen(
        [AUTHZ, "serve"], env=without_settings() | variables, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        started = next(line for line in process.stderr if '"event":"serving"' in line or "Traceback" in line)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    assert "Traceback" not in started + log
    assert process.returncode == 0
    assert not marker.exists()
    assert (tmp_path / "here.db").exists(), (
        "a path of a setting is of the folder that the server is started in"
    )


def test_calls_that_end_while_the_server_waits_for_their_client_leave_no_errors_in_the_log(
    sqlite_url: str,
) -> None:
    silent = threading.Event()

    def say_nothing() -> Iterator[bytes]:
        silent.wait(60)
        yield from ()

    with serving(sqlite_url, **ENVOY) as (process, found):
        with grpc.insecure_channel(found) as channel:
            ask: Any = channel.stream_unary(CHECK)
            for _ in range(5):
                with pytest.raises(grpc.RpcError) as caught:
                    ask(say_nothing(), timeout=0.05)
                assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        silent.set()
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        lines = process.stderr.read()
    assert '"event":"stopped"' in lines
    assert '"level":"error"' not in lines


def test_two_servers_do_not_share_a_port_unasked(address: str, sqlite_url: str) -> None:
    environ = {"AUTHZ_ADDRESS": address, "AUTHZ_DATABASE_URL": sqlite_url, **ENVOY}
    process = Process("serve", environ=environ, stderr=subprocess.PIPE)
    assert process.wait(60) == 2
    assert process.stderr is not None
    assert f"cannot listen at `{address}`" in process.stderr.read()


def test_a_setting_that_cannot_be_used_ends_the_start_with_its_name(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/no/such/folder.db"
    process = Process(
        "serve",
        environ={"AUTHZ_DATABASE_URL": url, "AUTHZ_ADDRESS": "127.0.0.1:0", **ENVOY},
        stderr=subprocess.PIPE,
    )
    assert process.wait(60) == 2
    assert process.stderr is not None
    assert '"event":"cannot start"' in process.stderr.read()


def test_the_configuration_of_envoy_is_shown_and_serves_nothing() -> None:
    shown = run([AUTHZ, "serve", "--print-config", "--address", "127.0.0.1:4444"])
    assert shown.returncode == 0, shown.stderr
    (listener,) = json.loads(shown.stdout)["static_resources"]["listeners"]
    assert listener["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 4444}


def test_a_stop_whose_folder_was_deleted_says_so_and_ends(sqlite_url: str, tmp_path: Path) -> None:
    with serving(sqlite_url, TMPDIR=str(tmp_path), **ENVOY) as (process, address), Client(address) as client:
        client.check("user:maya", "read", "course:algebra")
        (folder,) = tmp_path.glob("authz-envoy-*")
        shutil.rmtree(folder)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert any("clients not asked to reconnect elsewhere" in line for line in process.stderr)
        assert process.wait(30) == 0


def test_a_server_with_a_long_folder_for_temporary_files_starts_and_leaves_nothing_there(
    sqlite_url: str, tmp_path: Path
) -> None:
    temporary = tmp_path / ("x" * 120)
    temporary.mkdir()
    with serving(sqlite_url, TMPDIR=str(temporary), **ENVOY) as (process, address):
        with Client(address) as client:
            assert not client.check("user:maya", "read", "course:algebra").allowed
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert not any("clients not asked" in line for line in process.stderr)
        assert process.wait(30) == 0
    assert not list(temporary.iterdir())


needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="needs openssl to make certificates"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    certify(made, "localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    for name in ("roster-sync", "nobody"):
        certify(made, name, "-addext", f"subjectAltName=URI:spiffe://qalam/{name}")
    authorities = [(made / f"{name}.pem").read_text() for name in ("roster-sync", "nobody")]
    (made / "authorities.pem").write_text("".join(authorities))
    (made / "callers.toml").write_text('[uri]\n"spiffe://qalam/roster-sync" = "service:roster-sync"\n')
    return made


@pytest.fixture(scope="module")
def certified(folder: Path) -> Iterator[tuple[Process, str]]:
    url = create_sqlite(folder / "authz.db")
    grant(url, {"service:roster-sync": "platform_admin"})
    variables = {
        "AUTHZ_ADDRESS": "localhost:0",
        "AUTHZ_TLS_CERTIFICATE_FILE": str(folder / "localhost.pem"),
        "AUTHZ_TLS_KEY_FILE": str(folder / "localhost.key"),
        "AUTHZ_TLS_CLIENT_CA_FILE": str(folder / "authorities.pem"),
        "AUTHZ_CALLERS_FILE": str(folder / "callers.toml"),
    }
    with serving(url, **variables, **ENVOY) as running:
        yield running


@needs_openssl
def test_a_certificate_that_cannot_be_renewed_is_told_and_the_old_one_stays(folder: Path) -> None:
    url, temporary = create_sqlite(folder / "temporary.db"), folder / "temporary"
    temporary.mkdir()
    for kind in ("key", "pem"):
        shutil.copy(folder / f"localhost.{kind}", folder / f"own.{kind}")
    variables = {
        "TMPDIR": str(temporary),
        "AUTHZ_ADDRESS": "localhost:0",
        "AUTHZ_TLS_CERTIFICATE_FILE": str(folder / "own.pem"),
        "AUTHZ_TLS_KEY_FILE": str(folder / "own.key"),
    }
    with serving(url, **variables, **ENVOY) as (process, address):
        (secrets,) = temporary.glob("authz-envoy-*")
        descriptor = os.open(secrets, os.O_RDONLY)
        with pytest.raises(BlockingIOError):  # systemd-tmpfiles, too, gets no lock, and leaves it alone
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
        shutil.rmtree(secrets)
        (folder / "own.pem").touch()
        assert process.stderr is not None
        assert any("certificate not renewed; restart the server" in line for line in process.stderr)
        drain(process)
        with Client(address, tls_ca_file=str(folder / "localhost.pem")) as client:
            assert not client.check("user:maya", "read", "course:algebra").allowed


def code_of(
    certified: tuple[Process, str], folder: Path, client: str | None, *headers: tuple[str, str]
) -> grpc.StatusCode:
    """How a read ends for the client with this certificate."""
    with grpc.secure_channel(certified[1], channel_credentials(folder, client)) as channel:
        stub = directory_pb2_grpc.DirectoryServiceStub(channel)
        try:
            stub.ReadCourses(directory_pb2.ReadCoursesRequest(), metadata=headers, timeout=20)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


@needs_openssl
def test_the_name_in_the_certificate_decides_who_calls(certified: tuple[Process, str], folder: Path) -> None:
    assert code_of(certified, folder, "roster-sync") is grpc.StatusCode.OK
    assert code_of(certified, folder, "nobody") is grpc.StatusCode.UNAUTHENTICATED
    assert code_of(certified, folder, None) is grpc.StatusCode.UNAVAILABLE


@needs_openssl
def test_a_client_without_a_certificate_is_told_to_set_one(
    certified: tuple[Process, str], folder: Path
) -> None:
    # Of `localhost`, gRPC may tell the error of the address at which nobody listens.
    address = certified[1].replace("localhost", "127.0.0.1")
    with (
        Client(address, tls_ca_file=str(folder / "localhost.pem")) as client,
        pytest.raises(CallError, match="set `tls_certificate_file` and `tls_key_file`") as caught,
    ):
        client.check("user:maya", "read", "course:algebra")
    assert caught.value.is_misconfigured


@needs_openssl
@pytest.mark.parametrize("name", ["x-forwarded-client-cert", "X-Forwarded-Client-Cert"])
def test_a_client_cannot_say_whose_certificate_it_has(
    certified: tuple[Process, str], folder: Path, name: str
) -> None:
    stolen = quote((folder / "roster-sync.pem").read_text(), safe="")
    stated = (name.lower(), f'Hash=0;Cert="{stolen}"')
    for headers in ([stated], [stated, stated]):
        assert code_of(certified, folder, "nobody", *headers) is grpc.StatusCode.UNAUTHENTICATED
    assert code_of(certified, folder, "roster-sync", stated) is grpc.StatusCode.OK


@needs_openssl
def test_a_renewed_certificate_is_shown_and_no_key_is_left_on_disk(
    certified: tuple[Process, str], folder: Path
) -> None:
    (folder / "new").mkdir()
    certify(folder / "new", "localhost", "-addext", "subjectAltName=DNS:localhost")
    for kind in ("key", "pem"):
        (folder / "new" / f"localhost.{kind}").replace(folder / f"localhost.{kind}")
    assert certified[0].stderr is not None
    assert any("certificate renewed" in line for line in certified[0].stderr)
    while code_of(certified, folder, "roster-sync") is not grpc.StatusCode.OK:
        pass  # Envoy reads the file a moment later
