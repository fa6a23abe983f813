"""The environment of others: their variables, proxies, ports, sockets, limits and folders change nothing."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from authz.client import Client
from authz.domain.errors import InvalidArgumentError
from authz.runtime.bind import reserve
from authz.runtime.compose import prepare_database
from authz.runtime.server import Server
from authz.runtime.settings import Settings, load_settings
from tests import forkserver
from tests.cli.commands import run
from tests.forkserver import AUTHZ
from tests.runtime.test_server import campus_of, refused
from tests.serving import served, serving

LINKS = {
    "AUTHZ_SERVICE_HOST": "10.0.0.7",
    "AUTHZ_SERVICE_PORT": "50051",
    "AUTHZ_SERVICE_PORT_GRPC": "50051",
    "AUTHZ_PORT": "tcp://10.0.0.7:50051",
    "AUTHZ_PORT_50051_TCP": "tcp://10.0.0.7:50051",
    "AUTHZ_PORT_50051_TCP_PROTO": "tcp",
    "AUTHZ_PORT_50051_TCP_PORT": "50051",
    "AUTHZ_PORT_50051_TCP_ADDR": "10.0.0.7",
    "AUTHZ_METRICS_SERVICE_HOST": "10.0.0.8",
    "AUTHZ_METRICS_PORT": "tcp://10.0.0.8:9464",
}
"""What Kubernetes sets beside the services `authz` and `authz-metrics`."""


def test_the_variables_of_a_service_named_authz_are_not_settings() -> None:
    assert load_settings(environ=LINKS) == Settings()


@pytest.mark.parametrize("name", ["AUTHZ_PORT", "AUTHZ_METRICS_PORT", "AUTHZ_PORTS", "AUTHZ_SERVICE_HOSTS"])
def test_a_variable_that_somebody_set_by_mistake_is_still_told(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"`{name}` is not a setting"):
        load_settings(environ={name: "50051"})


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("AUTHZ_DATABSE_URL", "sqlite://", "did you mean `AUTHZ_DATABASE_URL`?"),
        ("AUTHZ_TLS_KEY", "key.pem", "did you mean `AUTHZ_TLS_KEY_FILE`?"),
        ("AUTHZ_PORT", "50051", "known are `AUTHZ_ACCESS_TOKENS`, "),
        ("AUTHZ_WORKERS", "0", "is `0`; give a whole number >= 1"),
        ("AUTHZ_MAX_STALENESS_S", "5m", "is `5m`; give a number"),
        ("AUTHZ_ACCESS_TOKENS", "maybe", "is `maybe`; give `true` or `false`"),
        ("AUTHZ_TRANSPORT", "http", "is `http`; give one of"),
    ],
)
def test_a_mistaken_setting_is_told_with_its_remedy(variable: str, value: str, remedy: str) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape(remedy)):
        load_settings(environ={variable: value})


def test_a_server_that_makes_a_database_says_where(tmp_path: Path) -> None:
    file = tmp_path / "authz.db"
    for made in ([str(file)], []):
        with capture_logs() as lines:
            prepare_database(load_settings({"database_url": f"sqlite:///{file}"}, environ={}))
        assert [line["file"] for line in lines if line["event"] == "database created"] == made


@pytest.fixture(scope="module")
def asked(shared_sqlite_url: str) -> Iterator[tuple[str, ...]]:
    """A question that a server allows."""
    with served(shared_sqlite_url) as address:
        with Client(address) as client:
            client.write(campus_of(1))
        yield "check", "user:maya", "read", "material:m1", "--address", address


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_a_question_goes_through_no_proxy_unless_it_is_asked_for(
    asked: tuple[str, ...], sqlite_url: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert run(*asked).stdout.startswith("allowed")
    assert run(*asked, "--use-proxy").returncode == 2
    assert run(*asked[:4], "--database", sqlite_url).stdout.startswith("denied")


def server_at(path: Path, url: str, **more: str) -> Server:
    """A server at a Unix socket."""
    given = {"address": f"unix:{path}", "database_url": url, "stop_grace_s": "0", **more}
    return Server(load_settings(given, environ={}))


async def test_a_second_server_does_not_take_a_unix_socket(sqlite_url: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with server_at(path, sqlite_url):
        with pytest.raises(InvalidArgumentError, match="another process does; set AUTHZ_ADDRESS"):
            await server_at(path, sqlite_url).start()
        assert path.is_socket()
    async with server_at(path, sqlite_url):
        assert path.is_socket()


async def test_a_unix_socket_of_another_program_is_left_to_it(sqlite_url: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(InvalidArgumentError, match="another process does; set AUTHZ_ADDRESS"):
            await server_at(path, sqlite_url).start()
        assert path.is_socket()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("transport", ["envoy", "grpc"])
def test_a_file_at_the_address_of_a_unix_socket_is_left_alone(
    sqlite_url: str, tmp_path: Path, transport: str, workers: str
) -> None:
    file = tmp_path / "notes"
    file.write_text("of somebody")
    given = ("--transport", transport, "--workers", workers, "--database", sqlite_url)
    told = refused(*given, "--address", f"unix:{file}")
    assert ("is not a socket" if workers == "1" else "set AUTHZ_WORKERS=1") in told
    assert file.read_text() == "of somebody"
    assert not (tmp_path / "notes.lock").exists()


@pytest.mark.parametrize("address", ["unix:", "unix://"])
def test_a_unix_socket_without_a_path_is_told(address: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"write it like `unix:/run/authz/s`"):
        load_settings({"address": address}, environ={})


def test_the_unix_socket_of_a_server_that_was_killed_is_taken_over(sqlite_url: str, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 's'}"
    with serving(sqlite_url, AUTHZ_ADDRESS=address) as (process, _):
        process.kill()
        process.wait()
    assert (tmp_path / "s").is_socket()
    with serving(sqlite_url, AUTHZ_ADDRESS=address), Client(address) as client:
        client.write(campus_of(1))
        assert client.check("user:maya", "read", "material:m1").allowed


def test_a_unix_socket_with_too_long_a_path_is_told(sqlite_url: str) -> None:
    told = refused("--database", sqlite_url, "--address", f"unix:/{'s' * 107}")
    assert "the path of a Unix socket has at most 107 bytes" in told


def test_a_port_whose_last_server_did_not_share_it_can_be_shared_at_once(free_port: int) -> None:
    address = f"127.0.0.1:{free_port}"
    with socket.create_server(("127.0.0.1", free_port)) as before:
        client = socket.create_connection(("127.0.0.1", free_port))
        accepted, _ = before.accept()
    # The side that closes first remembers the connection for a minute.
    accepted.close()
    client.close()
    reserved, bound = reserve(address)
    reserved.close()
    assert bound == address


def test_a_port_that_another_supervisor_has_reserved_is_refused(free_port: int) -> None:
    address = f"127.0.0.1:{free_port}"
    with reserve(address)[0], pytest.raises(InvalidArgumentError, match="cannot listen"):
        reserve(address)


def test_a_temporary_folder_with_a_long_path_is_no_obstacle(sqlite_url: str, tmp_path: Path) -> None:
    folder = tmp_path / ("t" * 120)
    folder.mkdir()
    with serving(sqlite_url, AUTHZ_WORKERS="2", TMPDIR=str(folder)) as (process, address):
        with Client(address) as client:
            client.write(campus_of(1))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    asked = ["check", "user:maya", "read", "material:m1", "--database", sqlite_url]
    for command in (asked, ["demo"]):
        assert forkserver.run(*command, environ=os.environ | {"TMPDIR": str(folder)}).returncode == 0


@pytest.mark.parametrize("command", [["serve"], ["serve", "--workers", "2"], ["follow"]])
def test_too_little_address_space_is_told_with_the_setting(sqlite_url: str, command: list[str]) -> None:
    limited: list[str | Path] = ["bash", "-c", 'ulimit -v 8000000; exec "$@"', "bash", AUTHZ, *command]
    environ = os.environ | {"AUTHZ_ADDRESS": "127.0.0.1:0", "AUTHZ_DATABASE_URL": sqlite_url}
    ended = subprocess.run(limited, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "lower AUTHZ_REPLICA_MAX_BYTES" in ended.stderr
