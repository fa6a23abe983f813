"""TLS as an operator and a client meet it: renewed certificates, and what a client is told to change."""

from __future__ import annotations

import codecs
import json
import shutil
import ssl
from pathlib import Path

import pytest

from authz.cli.errors import in_flags
from authz.client import CallError, Client
from tests.cli.commands import run
from tests.forkserver import TRANSPORT, Process
from tests.runtime.test_mutual_tls import certify
from tests.runtime.test_supervise import children
from tests.serving import WHY_NOT_ENVOY, both_transports, serving

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")
SAN = ("-addext", "subjectAltName=DNS:localhost")


TLS_FLAGS = ("--tls-ca-file", "--tls-certificate-file", "--tls-key-file")


def variables(files: tuple[Path, Path]) -> dict[str, str]:
    """The settings of a server with these files."""
    return {"AUTHZ_TLS_CERTIFICATE_FILE": str(files[0]), "AUTHZ_TLS_KEY_FILE": str(files[1])}


def shown(address: str) -> str:
    """The certificate that a server shows."""
    return ssl.get_server_certificate(("127.0.0.1", int(address.rpartition(":")[2])))


def await_event(process: Process, event: str) -> dict[str, str]:
    """The next line of this event."""
    assert process.stderr is not None
    for line in process.stderr:
        read: dict[str, str] = json.loads(line)
        if read["event"] == event:
            return read
    raise AssertionError(event)


def test_a_renewed_certificate_is_taken_up_and_a_bad_one_is_not(sqlite_url: str, tmp_path: Path) -> None:
    files = certify(tmp_path, "localhost", *SAN)
    (tmp_path / "new").mkdir()
    renewed = certify(tmp_path / "new", "localhost", *SAN)
    with serving(sqlite_url, **variables(files)) as (process, address):
        assert shown(address) == files[0].read_text()
        kept = files[0].read_text()
        files[0].write_text("not a certificate")
        assert shown(address) == kept
        told = await_event(process, "certificate not renewed; the old one stays")
        assert str(files[0]) in told["error"]
        for new, old in zip(renewed, files, strict=True):
            new.replace(old)
        if TRANSPORT == "grpc" or WHY_NOT_ENVOY:  # at the next connection
            assert shown(address) == files[0].read_text() != kept
        assert await_event(process, "certificate renewed")["file"] == str(files[0])
        while shown(address) != files[0].read_text():
            pass  # Envoy takes it a moment later
        with Client(f"localhost:{address.rpartition(':')[2]}", tls_ca_file=str(files[0])) as client:
            assert not client.check("user:maya", "read", "course:c1").allowed


@both_transports
def test_files_of_tls_may_begin_with_a_byte_order_mark(sqlite_url: str, tmp_path: Path) -> None:
    """As editors on Windows write it."""
    files = certify(tmp_path, "localhost", *SAN)
    for file in files:
        file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
    clients = {"AUTHZ_TLS_CLIENT_CA_FILE": str(files[0]), "AUTHZ_ALLOW_UNAUTHENTICATED": "true"}
    with (
        serving(sqlite_url, **variables(files), **clients) as (_, address),
        Client(
            f"localhost:{address.rpartition(':')[2]}",
            tls_ca_file=str(files[0]),
            tls_certificate_file=str(files[0]),
            tls_key_file=str(files[1]),
        ) as client,
    ):
        assert not client.check("user:maya", "read", "course:c1").allowed


@both_transports
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_key_of_another_certificate_ends_the_start(sqlite_url: str, tmp_path: Path, workers: str) -> None:
    files = certify(tmp_path, "localhost", *SAN)[0], certify(tmp_path, "other", *SAN)[1]
    ended = run(
        "serve",
        "--workers",
        workers,
        "--address",
        "127.0.0.1:0",
        "--database",
        sqlite_url,
        **variables(files),
    )
    assert ended.returncode == 2
    (line,) = map(json.loads, ended.stderr.splitlines())
    assert "set AUTHZ_TLS_CERTIFICATE_FILE and AUTHZ_TLS_KEY_FILE" in line["error"]


def test_a_worker_that_finds_no_certificate_says_so_and_serves_once_there_is_one(
    sqlite_url: str, tmp_path: Path
) -> None:
    files = certify(tmp_path, "localhost", *SAN)
    away = tmp_path / "away"
    with serving(sqlite_url, AUTHZ_WORKERS="2", **variables(files)) as (process, _):
        files[1].rename(away)
        for each in children(process):
            each.kill()
        assert str(files[1]) in await_event(process, "cannot start")["error"]
        away.rename(files[1])
        await_event(process, "worker serving")


def test_what_differs_about_tls_is_told_with_its_remedy(sqlite_url: str, tmp_path: Path) -> None:
    files = certify(tmp_path, "localhost", *SAN)
    other = certify(tmp_path, "other", *SAN)[0]

    def told(address: str, ca: str | None) -> str:
        with Client(address, tls_ca_file=ca) as client, pytest.raises(CallError) as caught:
            client.check("user:maya", "read", "course:c1")
        asked = ("check", "user:maya", "read", "course:c1", "--address", address)
        printed = run(*asked, *(("--tls-ca-file", ca) if ca else ()))
        assert (printed.returncode, "authz serve" in printed.stderr) == (2, False)
        assert in_flags(caught.value.message.partition(" (connections")[0], TLS_FLAGS) in printed.stderr
        return caught.value.message

    with serving(sqlite_url, **variables(files)) as (_, address):
        # Of a name with several addresses, gRPC tells the error of one: `localhost` has two.
        assert "if it has TLS, set `tls_ca_file`" in told(address, None)
        assert "not from the authority in `tls_ca_file`" in told(address, str(other))
        assert "is for another name" in told(address, str(files[0]))
    with serving(sqlite_url) as (_, address):
        assert "the server has no TLS" in told(address, str(files[0]))
