"""Which keys of certificates a start refuses and `authz doctor` names: those that BoringSSL does."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

from authz.domain.errors import InvalidArgumentError
from authz.runtime.certificate_keys import require_shown, require_verified, unaccepted_keys
from authz.runtime.settings import load_settings
from authz.runtime.tls_files import CertificateFiles
from tests.cli.commands import run
from tests.runtime.test_mutual_tls import certify
from tests.runtime.test_tls_files import variables
from tests.serving import both_transports, serving

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")
NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"
SAN = ("-addext", NAMES)
_CURVE = ("ec", "-pkeyopt", "ec_paramgen_curve:{}")
KEYS = {
    "RSA": ("rsa:2048",),
    "P-224": (*_CURVE, "secp224r1"),
    "P-256": (*_CURVE, "prime256v1"),
    "P-384": (*_CURVE, "secp384r1"),
    "P-521": (*_CURVE, "secp521r1"),
    "secp256k1": (*_CURVE, "secp256k1"),
    "brainpoolP256r1": (*_CURVE, "brainpoolP256r1"),
    "P-256 with explicit parameters": (*_CURVE, "prime256v1", "-pkeyopt", "ec_param_enc:explicit"),
    "Ed25519": ("ed25519",),
    "Ed448": ("ed448",),
    "RSA-PSS": ("rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"),
}


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def certify_with(key: str, folder: Path) -> tuple[Path, Path]:
    """A self-made certificate for `localhost` with a kind of key, and the key."""
    files = folder / "made.pem", folder / "made.key"
    kind, *options = KEYS[key]
    if "{}" in str(options):
        options = [options[0], options[1].format(options[2]), *options[3:]]
    named = ("-subj", "/CN=made", "-addext", NAMES)
    openssl(
        *("req", "-x509", "-newkey", kind, *options, "-nodes", "-days", "30", *named),
        *("-out", files[0], "-keyout", files[1]),
    )
    return files


def signed_by(authority: tuple[Path, Path], folder: Path) -> tuple[Path, Path]:
    """A certificate for `localhost` of P-256, signed by an authority, and its key."""
    certificate, key, request, extensions = (
        folder / name for name in ("leaf.pem", "leaf.key", "csr", "extensions")
    )
    extensions.write_text(f"{NAMES}\n")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=leaf")
    openssl("req", "-new", *new, "-keyout", key, "-out", request)
    by = ("-CA", authority[0], "-CAkey", authority[1], "-set_serial", "2", "-days", "2")
    openssl("x509", "-req", "-in", request, *by, "-extfile", extensions, "-out", certificate)
    return certificate, key


class _Answers(grpc.GenericRpcHandler):
    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"answer")


def handshake(shown: tuple[Path, Path], root: Path, of_client: tuple[Path, Path], ca: Path | None) -> str:
    """What comes of a call over TLS with the gRPC of Python on both sides."""
    (chain, key), (certificate, client_key) = (
        [file.read_bytes() for file in files] for files in (shown, of_client)
    )
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((_Answers(),))
        authority = None if ca is None else ca.read_bytes()
        credentials = grpc.ssl_server_credentials([(key, chain)], authority, ca is not None)
        try:
            port = server.add_secure_port("localhost:0", credentials)
        except RuntimeError:
            return "not served"
        server.start()
        by = grpc.ssl_channel_credentials(root.read_bytes(), client_key, certificate)
        with grpc.secure_channel(f"localhost:{port}", by) as channel:
            call: Any = channel.unary_unary("/any/Call")
            try:
                call(b"", timeout=30)
            except grpc.RpcError:
                return "refused"
            finally:
                server.stop(None)
    return "works"


def refuses(check: Callable[[str], None], file: Path) -> str:
    """Why a file is refused; empty if it is not."""
    try:
        check(str(file))
    except InvalidArgumentError as error:
        return error.message
    return ""


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_a_server_is_told_as_its_handshakes_end(key: str, tmp_path: Path) -> None:
    made, client = certify_with(key, tmp_path), certify(tmp_path, "client")
    outcome = handshake(made, made[0], client, None)
    refused = refuses(require_shown, made[0])
    assert (f"is {key}, with which no TLS handshake succeeds" in refused) is (outcome == "not served")
    if not refused:
        told = [*unaccepted_keys(str(made[0]), "")]
        assert any(f"is {key}, which `authz` and the clients" in each for each in told) is (
            outcome == "refused"
        )


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_an_authority_is_told_as_it_verifies_clients(key: str, tmp_path: Path) -> None:
    authority, server = certify_with(key, tmp_path), certify(tmp_path, "server", *SAN)
    client = signed_by(authority, tmp_path)
    outcome = handshake(server, server[0], client, authority[0])
    refused = refuses(require_verified, authority[0])
    assert (f"is {key}, by which the server can verify no client" in refused) is (outcome != "works")
    both = tmp_path / "both.pem"
    both.write_bytes(server[0].read_bytes() + authority[0].read_bytes())
    assert refuses(require_verified, both) == ""
    told = [*unaccepted_keys(str(server[0]), str(both))]
    assert any(f"is {key}, which verifies no certificate" in each for each in told) is bool(refused)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(client[0].read_bytes() + authority[0].read_bytes())
    told = [*unaccepted_keys(str(chain), "")]
    assert any("which verifies no certificate" in each for each in told) is bool(refused)


@both_transports
def test_a_start_with_a_key_that_no_handshake_takes_ends(sqlite_url: str, tmp_path: Path) -> None:
    made = certify_with("secp256k1", tmp_path)
    options = ("--address", "127.0.0.1:0", "--database", sqlite_url)
    files = ("--tls-certificate-file", made[0], "--tls-key-file", made[1])
    ended = run("serve", *options, *files)
    assert ended.returncode == 2
    (line,) = map(json.loads, ended.stderr.splitlines())
    assert "is secp256k1, with which no TLS handshake succeeds; make one that is RSA" in line["error"]
    server = certify(tmp_path, "server", *SAN)
    files = ("--tls-certificate-file", server[0], "--tls-key-file", server[1])
    ended = run("serve", *options, *files, "--tls-client-ca-file", made[0], "--allow-unauthenticated")
    assert (ended.returncode, "is secp256k1, by which the server can verify no" in ended.stderr) == (2, True)


@both_transports
@pytest.mark.parametrize("key", ["P-521", "Ed25519"])
def test_a_client_whose_handshake_ends_for_a_key_is_told_so(
    key: str, sqlite_url: str, tmp_path: Path
) -> None:
    made, server = certify_with(key, tmp_path), certify(tmp_path, "server", *SAN)

    def told(address: str, ca: Path, *options: str | Path) -> str:
        failed = run("courses", "--address", address, "--tls-ca-file", ca, *options)
        assert (failed.returncode, "authz serve" in failed.stderr) == (2, False), failed.stderr
        return failed.stderr

    with serving(sqlite_url, **variables(made)) as (_, address):
        assert "if the key of the server is P-521 or Ed25519" in told(address, made[0])
    clients = {"AUTHZ_TLS_CLIENT_CA_FILE": str(made[0]), "AUTHZ_ALLOW_UNAUTHENTICATED": "true"}
    with serving(sqlite_url, **variables(server), **clients) as (_, address):
        own = ("--tls-certificate-file", made[0], "--tls-key-file", made[1])
        assert "does not accept the kind of key in `--tls-key-file`" in told(address, server[0], *own)


def test_a_client_that_cannot_read_the_key_of_an_authority_is_told_so(
    sqlite_url: str, tmp_path: Path
) -> None:
    authority = certify_with("secp256k1", tmp_path)
    with serving(sqlite_url, **variables(signed_by(authority, tmp_path))) as (_, address):
        failed = run("courses", "--address", address, "--tls-ca-file", authority[0])
    assert failed.returncode == 2
    assert "the authority in `--tls-ca-file` has a key that this client cannot read" in failed.stderr


def test_a_renewed_certificate_whose_key_no_handshake_takes_is_not_taken_up(tmp_path: Path) -> None:
    made, server = certify_with("secp256k1", tmp_path), certify(tmp_path, "server", *SAN)
    files = CertificateFiles(load_settings(environ=variables(server)))
    assert files.load_if_renewed() is None
    for new, old in zip(made, server, strict=True):
        new.replace(old)
    with structlog.testing.capture_logs() as lines:
        assert files.load_if_renewed() is None
    (line,) = lines
    assert line["event"] == "certificate not renewed; the old one stays"
    assert "is secp256k1, with which no TLS handshake succeeds" in line["error"]


@pytest.mark.parametrize(("key", "told"), [("P-521", "which `authz` and the clients"), ("Ed448", "no TLS")])
def test_the_doctor_names_a_key_that_clients_refuse(
    key: str, told: str, sqlite_url: str, tmp_path: Path
) -> None:
    made = certify_with(key, tmp_path)
    variables = {"AUTHZ_TLS_CERTIFICATE_FILE": str(made[0]), "AUTHZ_TLS_KEY_FILE": str(made[1])}
    done = run("doctor", "--database", sqlite_url, **variables)
    assert done.returncode == 1
    assert f"is {key}, " in done.stdout
    assert told in done.stdout
