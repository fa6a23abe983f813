"""The keys of certificates with which TLS works.

Python loads a certificate by OpenSSL, and Envoy and gRPC serve it by BoringSSL, which reads fewer keys.
Without this, a server would start, and every handshake would fail.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from authz.domain.errors import invalid

_USABLE = "RSA, P-256 or P-384"
_CURVES = {"secp224r1": "P-224", "secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_SHOWN = ("RSA", "P-256", "P-384", "P-521", "Ed25519")
"""Those that the server can show."""
_NOT_ACCEPTED = ("P-521", "Ed25519")
"""Those that BoringSSL shows, and does not accept from the other side."""
_VERIFIED = (*_SHOWN, "P-224")
"""Those by which a certificate may be signed."""
_EC = bytes.fromhex("06072a8648ce3d0201")
"""The DER of the algorithm of elliptic curves, before the name of a curve or its parameters."""
_NAME_TAG = b"\x06"


def require_shown(chain_file: str) -> None:
    """Raise `InvalidArgumentError` for the chain of a server whose key ends every handshake."""
    for certificate in read_chain(chain_file)[:1]:
        key = _key_of(certificate)
        if key not in _SHOWN:
            raise invalid(
                "AUTHZ_TLS_CERTIFICATE_FILE",
                f"the key of `{chain_file}` is {key}, with which no TLS handshake succeeds; make one that is"
                f" {_USABLE}",
            )


def require_verified(ca_file: str) -> None:
    """Raise `InvalidArgumentError` for a file of authorities by none of which a client can be verified."""
    keys = [*map(_key_of, read_chain(ca_file))]
    if keys and not any(key in _VERIFIED for key in keys):
        raise invalid(
            "AUTHZ_TLS_CLIENT_CA_FILE",
            f"the key of `{ca_file}` is {keys[0]}, by which the server can verify no client; make an"
            f" authority whose key is {_USABLE}",
        )


def unaccepted_keys(chain_file: str, ca_file: str) -> Iterator[str]:
    """What some clients refuse about a chain, and which authorities verify nobody; for files that passed
    `require_shown` and `require_verified`. Either name may be empty."""
    for certificate in read_chain(chain_file)[:1]:
        if (key := _key_of(certificate)) in _NOT_ACCEPTED:
            who = "`authz` and the clients of gRPC in Python, C++, Ruby, PHP and C#"
            yield f"the key of {chain_file} is {key}, which {who} refuse; make one that is {_USABLE}"
    for file, certificates in ((chain_file, read_chain(chain_file)[1:]), (ca_file, read_chain(ca_file))):
        for certificate in certificates:
            if (key := _key_of(certificate)) not in _VERIFIED:
                name = certificate.subject.rfc4514_string()
                yield (
                    f"the key of `{name}` in {file} is {key}, which verifies no certificate; make an"
                    f" authority whose key is {_USABLE}"
                )


def read_chain(file: str) -> list[x509.Certificate]:
    """The certificates of a file; none of one that cannot be read, or of no file."""
    try:
        return x509.load_pem_x509_certificates(Path(file).read_bytes().removeprefix(codecs.BOM_UTF8))
    except (ValueError, OSError):
        return []  # OpenSSL says what is wrong


def _key_of(certificate: x509.Certificate) -> str:
    """The kind of its key, as people name it."""
    try:
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return "of an unknown kind"
    if isinstance(key, rsa.RSAPublicKey):
        is_plain = certificate.public_key_algorithm_oid == x509.PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5
        return "RSA" if is_plain else "RSA-PSS"
    if isinstance(key, ec.EllipticCurvePublicKey):
        name = _CURVES.get(key.curve.name, key.curve.name)
        named = _EC + _NAME_TAG in certificate.tbs_certificate_bytes
        return name if named else f"{name} with explicit parameters"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "Ed25519"
    return type(key).__name__.removesuffix("PublicKey")
