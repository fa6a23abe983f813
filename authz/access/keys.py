"""The public keys that JWTs are verified with: from a file, or from a JWKS address that a thread asks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import msgspec
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from authz import https
from authz.access.algorithms import ALGORITHMS, OF_CURVES, OF_ED25519, OF_RSA
from authz.access.authentication import unverifiable
from authz.access.watched_file import WatchedFile
from authz.domain.errors import InvalidArgumentError, malformed
from authz.telemetry.metrics import RELOAD_FAILURES

log = structlog.get_logger()

_MIN_RSA_BITS = 2048
_BEGIN, _END = b"-----BEGIN ", b"-----END "
_MIN_INTERVAL_S = 5.0


class Key(msgspec.Struct, frozen=True):
    """A public key, the algorithms that it may verify, and its id; None if it has none."""

    value: Any
    algorithms: frozenset[str]
    id: str | None = None


class Keys(Protocol):
    """Where keys come from. Reading them never waits."""

    def current(self) -> tuple[Key, ...]:
        """The keys now: the same tuple until they change. Raises `UnavailableError` when there are none."""

    def refresh_soon(self) -> None:
        """Say that a JWT named a key that is not among them."""


class FileKeys(Keys):
    """The keys of a file, PEM or JWKS, which is read again when it changes."""

    def __init__(self, path: str) -> None:
        """Raises `InvalidArgumentError` for a file that cannot be used."""
        self._file: WatchedFile[tuple[Key, ...]] = WatchedFile(
            path, parse_keys, setting="AUTHZ_JWT_KEYS_FILE", holds="keys"
        )

    def current(self) -> tuple[Key, ...]:
        return self._file.value()

    def refresh_soon(self) -> None:
        """Nothing to do: a change of the file is noticed."""


class AddressKeys(Keys):
    """The keys of a JWKS address. A thread asks for them, and a call never does.

    While the address does not answer, or with something else than a JWKS, the last keys stay, for `max_age_s`
    at most. A JWKS without a usable key withdraws them.
    """

    def __init__(self, url: str, *, interval_s: float = 300, max_age_s: float = 86_400) -> None:
        self._url, self._interval_s, self._max_age_s = url, interval_s, max_age_s
        self._keys: tuple[Key, ...] = ()
        self._read_at = 0.0
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._refresh_forever, name="jwks", daemon=True)

    def start(self) -> None:
        """Fetch the keys now, then periodically in a thread. Never fails: without keys no JWT is accepted."""
        self._refresh()
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._wanted.set()

    def current(self) -> tuple[Key, ...]:
        if not self._keys or time.monotonic() - self._read_at > self._max_age_s:
            self._wanted.set()  # else callers would wait for the next period after the issuer is back
            raise unverifiable("the server has no current keys for JWTs; its log says why")
        return self._keys

    def refresh_soon(self) -> None:
        """Refreshes at most every few seconds."""
        self._wanted.set()

    def _refresh_forever(self) -> None:
        while not self._stopped.wait(_MIN_INTERVAL_S):
            self._wanted.wait(self._interval_s)
            self._wanted.clear()
            if not self._stopped.is_set():
                self._refresh()

    def _refresh(self) -> None:
        try:
            keys = _keys_of(https.fetch(self._url))
        except (ConnectionError, InvalidArgumentError) as error:
            RELOAD_FAILURES.labels("keys").inc()
            log.warning("keys of JWTs not refreshed; the last ones stay", address=self._url, cause=str(error))
            return
        if not keys:
            RELOAD_FAILURES.labels("keys").inc()
            log.warning("no JWT is accepted: the address has no usable key", address=self._url)
        elif keys != self._keys:
            log.info("keys of JWTs refreshed", address=self._url, ids=[key.id for key in keys])
        if keys != self._keys:
            self._keys = keys
        self._read_at = time.monotonic()


def fetch_keys(url: str) -> tuple[Key, ...]:
    """The keys of a JWKS address now. Raises `ConnectionError`, and as `parse_keys`."""
    return parse_keys(https.fetch(url))


def parse_keys(content: bytes) -> tuple[Key, ...]:
    """The keys of a JWKS, or of the blocks of a PEM file. Raises `InvalidArgumentError` if there is none."""
    found = _keys_of(content)
    if not found:
        raise malformed("it", f"has no public key for any of {', '.join(sorted(ALGORITHMS))}")
    return found


def _keys_of(content: bytes) -> tuple[Key, ...]:
    """As `parse_keys`, but none is no error."""
    # `openssl` writes what a block is about before it. Source: RFC 7468, section 2.
    is_pem = _BEGIN in content and not content.lstrip().startswith(b"{")
    return tuple(_pem_keys(content) if is_pem else _jwks_keys(content))


def _pem_keys(content: bytes) -> Iterable[Key]:
    for block in content.split(_BEGIN)[1:]:
        pem = _BEGIN + block
        try:
            if block.startswith(b"CERTIFICATE"):
                value: object = x509.load_pem_x509_certificate(pem).public_key()
            else:
                value = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm):
            kind = block.partition(b"-----")[0].decode(errors="replace")
            raise malformed("it", f"has a block `{kind}` that is no public key and no certificate") from None
        if algorithms := _algorithms_for(value):
            yield Key(value, algorithms)


def _jwks_keys(content: bytes) -> Iterable[Key]:
    try:
        listed = json.loads(content)["keys"]
    except (ValueError, TypeError, LookupError, RecursionError):
        listed = None
    if not isinstance(listed, list):
        raise malformed("it", 'is neither PEM nor a JWKS (`{"keys": […]}`)')
    for each in listed:
        key = _jwk(each) if isinstance(each, Mapping) else None
        if key is not None:
            yield key


def _jwk(jwk: Mapping[str, Any]) -> Key | None:
    """A key of a JWKS; None for one that verifies no signature here. A set may hold keys for other uses."""
    if jwk.get("use", "sig") != "sig" or jwk.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    try:
        # For the `alg` none, PyJWT raises NotImplementedError. Before 2.11, it raises TypeError or ValueError
        # for a number that cannot be read.
        value = PyJWK.from_dict({k: v for k, v in jwk.items() if k not in ("alg", "d")}).key
    except (PyJWTError, TypeError, ValueError):
        return None
    algorithms = frozenset(each for each in _algorithms_for(value) if jwk.get("alg", each) == each)
    kid = jwk.get("kid")
    return Key(value, algorithms, kid if isinstance(kid, str) else None) if algorithms else None


def _algorithms_for(key: object) -> frozenset[str]:
    found: set[str] = set()
    match key:
        case RSAPublicKey(key_size=bits) if bits >= _MIN_RSA_BITS:
            found = OF_RSA
        case EllipticCurvePublicKey(curve=curve):
            found = OF_CURVES.get(curve.name, found)
        case Ed25519PublicKey():
            found = OF_ED25519
    return frozenset(found)
