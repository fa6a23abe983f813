"""An issuer of JWTs with a key of its own, and the settings of a server that accepts them."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm

ISSUER, AUDIENCE = "https://issuer.test", "authz"
DAY_S = 86_400
"""Longer than a run of the tests, which may make a JWT long before it is shown."""


class Issuer:
    """Signs JWTs with ES256."""

    def __init__(self, key_id: str = "k1") -> None:
        self.key_id = key_id
        self.key = ec.generate_private_key(ec.SECP256R1())

    def jwt(self, caller: str, *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A JWT for a caller; a claim or a header field that is None is left out."""
        now = int(time.time())
        all_claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": caller, "iat": now, "exp": now + DAY_S} | claims
        fields = {"typ": "at+jwt", "kid": self.key_id} | dict(header or {})
        return jwt.encode(
            {name: value for name, value in all_claims.items() if value is not None},
            self.key,
            algorithm="ES256",
            headers={name: value for name, value in fields.items() if name == "typ" or value is not None},
        )

    def pem(self) -> bytes:
        """The public key as PEM."""
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def jwks(self) -> bytes:
        """The public key as JWKS."""
        return jwks_of(self)

    def settings(self, folder: Path) -> dict[str, str]:
        """Settings of a server that accepts its JWTs; writes the file of keys."""
        file = folder / "keys.json"
        file.write_bytes(self.jwks())
        return {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_keys_file": str(file)}


def jwks_of(*issuers: Issuer) -> bytes:
    """The public keys of issuers as JWKS."""
    keys = [
        ECAlgorithm.to_jwk(each.key.public_key(), as_dict=True) | {"kid": each.key_id, "use": "sig"}
        for each in issuers
    ]
    return json.dumps({"keys": keys}).encode()


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call that shows a token or a JWT."""
    return (("authorization", f"Bearer {token}"),)


def unsigned(claims: Mapping[str, Any], header: Mapping[str, Any]) -> str:
    """A JWT without a signature, as an attacker writes it."""
    parts = (json.dumps(part).encode() for part in (header, claims))
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."
