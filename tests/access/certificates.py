"""Client certificates with any names, as a transport shows them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


class Shown(msgspec.Struct, frozen=True):
    """A certificate as PEM, and its thumbprint."""

    pem: str
    thumbprint: str


def certificate(
    *,
    name: str = "client",
    uris: Sequence[str] = (),
    dns_names: Sequence[str] = (),
    days: int = 1,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> Shown:
    """A self-made certificate that ends in some days, or has ended; without `key`, of a new key."""
    key, now = key or ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    own = certificate_name(name)
    made = x509.CertificateBuilder().subject_name(own).issuer_name(own).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(days=9))
    made = made.not_valid_after(now + timedelta(days=days))
    names = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns_names)]
    if names:
        made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
    signed = made.sign(key, SHA256())
    thumbprint = base64.urlsafe_b64encode(signed.fingerprint(SHA256())).rstrip(b"=").decode()
    return Shown(signed.public_bytes(Encoding.PEM).decode(), thumbprint)


def server_certificate(folder: Path) -> Path:
    """A file with the key and the self-made certificate of a server at localhost; made once a folder."""
    file = folder / "server.pem"
    if not file.exists():
        key, own = ec.generate_private_key(ec.SECP256R1()), certificate_name("localhost")
        now = datetime.now(UTC)
        made = x509.CertificateBuilder().subject_name(own).issuer_name(own).public_key(key.public_key())
        made = made.serial_number(2).not_valid_before(now - timedelta(days=1))
        made = made.not_valid_after(now + timedelta(days=1))
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        signed = made.add_extension(names, critical=False).sign(key, SHA256())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(private + signed.public_bytes(Encoding.PEM))
    return file


def channel_credentials(folder: Path, client: str | None) -> grpc.ChannelCredentials:
    """Those of a client by its name, or of one without a certificate; it trusts the server at localhost."""
    own: dict[str, Any] = {}
    if client is not None:
        own["private_key"] = (folder / f"{client}.key").read_bytes()
        own["certificate_chain"] = (folder / f"{client}.pem").read_bytes()
    return grpc.ssl_channel_credentials((folder / "localhost.pem").read_bytes(), **own)


def certificate_name(common_name: str) -> x509.Name:
    """A subject with a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
