"""TLS handshakes that Envoy refuses: each is counted by its reason, and some are logged with their cause."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.databases import create_sqlite
from tests.forkserver import Process
from tests.runtime.test_http import total
from tests.runtime.test_mutual_tls import certify
from tests.serving import find_free_port, needs_envoy, serving
from tests.waiting import until

pytestmark = [
    needs_envoy,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates"),
]
METRIC = "authz_refused_handshakes_total"
AUTHORITY = ec.generate_private_key(ec.SECP256R1())


def issue(folder: Path, name: str, issuer: str, *, begins_days: int, ends_days: int) -> None:
    """A certificate of the authority, and its key."""
    key = AUTHORITY if name == issuer else ec.generate_private_key(ec.SECP256R1())
    today = datetime.now(UTC)
    issued = (
        x509.CertificateBuilder()
        .subject_name(x509.Name.from_rfc4514_string(f"CN={name}"))
        .issuer_name(x509.Name.from_rfc4514_string(f"CN={issuer}"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today + timedelta(days=begins_days))
        .not_valid_after(today + timedelta(days=ends_days))
        .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), critical=True)
    )
    (folder / f"{name}.pem").write_bytes(issued.sign(AUTHORITY, hashes.SHA256()).public_bytes(Encoding.PEM))
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / f"{name}.key").write_bytes(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of the server, of an authority, and of its clients; a stranger has one of its own."""
    made = tmp_path_factory.mktemp("certificates")
    for name in ("localhost", "stranger"):
        certify(made, name, "-addext", "subjectAltName=DNS:localhost")
    for name, begins, ends in [("authority", -2, 2), ("valid", -1, 1), ("expired", -2, -1), ("early", 1, 2)]:
        issue(made, name, "authority", begins_days=begins, ends_days=ends)
    return made


@pytest.fixture(scope="module", params=["1", "2"])
def server(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[Process, int, str]]:
    """A server with one worker, or with two, that requires certificates; its port and its metrics."""
    exported = f"127.0.0.1:{find_free_port()}"
    variables = {
        "AUTHZ_ADDRESS": "localhost:0",
        "AUTHZ_TRANSPORT": "envoy",
        "AUTHZ_WORKERS": request.param,
        "AUTHZ_METRICS_ADDRESS": exported,
        "AUTHZ_TLS_CERTIFICATE_FILE": str(folder / "localhost.pem"),
        "AUTHZ_TLS_KEY_FILE": str(folder / "localhost.key"),
        "AUTHZ_TLS_CLIENT_CA_FILE": str(folder / "authority.pem"),
    }
    url = create_sqlite(folder / f"{request.param}.db")
    with serving(url, **variables) as (process, address):
        yield process, int(address.rpartition(":")[2]), exported


def connect(folder: Path, port: int, certificate: str | None) -> bytes:
    """What the server sends first to a client with this certificate.

    Raises `OSError` if it refuses: the alert, or what comes of a connection that it has closed.
    """
    tls = ssl.create_default_context(cafile=str(folder / "localhost.pem"))
    tls.set_alpn_protocols(["h2"])
    if certificate is not None:
        tls.load_cert_chain(folder / f"{certificate}.pem", folder / f"{certificate}.key")
    with socket.create_connection(("localhost", port)) as plain:
        encrypted = tls.wrap_socket(plain, server_hostname="localhost")
        encrypted.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        return encrypted.recv(100)


def scan(port: int) -> None:
    """Connect as a client without TLS."""
    with socket.create_connection(("localhost", port)) as scanner:
        scanner.sendall(b"GET / HTTP/1.1\r\n\r\n")
        scanner.recv(100)


def test_each_refused_handshake_is_counted_by_its_reason(
    server: tuple[Process, int, str], folder: Path
) -> None:
    _, port, exported = server
    assert connect(folder, port, "valid")
    certificates: dict[str, list[str | None]] = {
        "no_certificate": [None],
        "expired_certificate": ["expired"],
        "untrusted_certificate": ["stranger", "early"],
    }
    for certificate in itertools.chain(*certificates.values()):
        with pytest.raises(OSError):
            connect(folder, port, certificate)
    scan(port)
    expected = {"other": 1} | {reason: len(each) for reason, each in certificates.items()}
    until(lambda: total(exported, METRIC) >= sum(expected.values()), "the refused handshakes are not counted")
    assert {reason: total(exported, METRIC, reason=reason) for reason in expected} == expected


def test_refused_handshakes_are_logged_with_their_cause_and_a_scan_does_not_fill_the_log(
    server: tuple[Process, int, str], folder: Path
) -> None:
    process, port, exported = server
    before, scans = total(exported, METRIC), 60
    with pytest.raises(OSError):
        connect(folder, port, None)
    for _ in range(scans):
        scan(port)
    until(lambda: total(exported, METRIC) == before + 1 + scans, "the refused handshakes are not counted")
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    lines: list[dict[str, Any]] = [json.loads(line) for line in process.stderr]
    refused = [line for line in lines if line["event"] == "TLS handshake refused"]
    assert any("PEER_DID_NOT_RETURN_A_CERTIFICATE" in line["cause"] for line in refused)
    assert {line["level"] for line in refused} == {"warning"}
    assert {line["client"] for line in refused} <= {"127.0.0.1", "::1"}
    assert len(refused) < scans / 2
