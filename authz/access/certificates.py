"""Client certificates: the name in one is that of a caller if the file of callers says so."""

from __future__ import annotations

import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeAlias

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from authz.access.authentication import Authenticator, Transport, invalid
from authz.access.principal import Principal
from authz.access.watched_file import WatchedFile
from authz.domain.errors import malformed
from authz.domain.ids import Subject, SubjectType, parse_subject
from authz.domain.toml import parse_toml

_Name: TypeAlias = tuple[str, str]
"""`uri` or `dns`, and the name as the certificate has it."""
Callers: TypeAlias = Mapping[_Name, Principal]
_MAX_CACHED = 1024


class Certificate(msgspec.Struct, frozen=True):
    """What a client certificate says: its one name, None without exactly one; its end; its thumbprint."""

    name: _Name | None
    ends_at_s: float
    thumbprint: str
    """SHA-256 of its DER form in base64url, as `x5t#S256` has it. Source: RFC 8705, 3.1."""


@lru_cache(maxsize=_MAX_CACHED)
def read_certificate(pem: bytes) -> Certificate:
    """Read a certificate that the transport has verified.

    Its name is its one URI, such as a SPIFFE id, or, without URIs, its one DNS name.
    """
    found = x509.load_pem_x509_certificate(pem)
    uris: list[str] = []
    dns_names: list[str] = []
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        pass
    else:
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        dns_names = names.get_values_for_type(x509.DNSName)
    kind, candidates = ("uri", uris) if uris else ("dns", dns_names)
    return Certificate(
        name=(kind, candidates[0]) if len(candidates) == 1 else None,
        ends_at_s=found.not_valid_after_utc.timestamp(),
        thumbprint=urlsafe_b64encode(found.fingerprint(SHA256())).rstrip(b"=").decode(),
    )


def parse_callers(content: bytes) -> Callers:
    """The callers of a file: `[uri]` and `[dns]`, each a table from a name to `service:<id>`.

    Raises `InvalidArgumentError`.
    """
    try:
        tables = parse_toml(content.decode())
    except ValueError as error:
        raise malformed("it", f"is not TOML: {error}") from None
    callers: dict[_Name, Principal] = {}
    for kind, entries in tables.items():
        if kind not in ("uri", "dns") or not isinstance(entries, dict):
            raise malformed("it", f"has `{kind}`; write a table `[uri]` or `[dns]` of names and callers")
        for name, caller in entries.items():
            callers[kind, name] = Principal(_service(caller, f"{kind} `{name}`"))
    return callers


def _service(text: object, field: str) -> Subject:
    if not isinstance(text, str):
        raise malformed(field, "is no text; write `service:<id>`")
    subject = parse_subject(text, field=field, form="service:notebooks")
    if subject.type is not SubjectType.SERVICE:
        raise malformed(field, f"is `{text}`, a person; a caller is a program: write `service:<id>`")
    return subject


class CertificateAuthenticator(Authenticator):
    """The caller is the one that the file of callers has for the one name in the client's certificate."""

    def __init__(self, callers_file: str) -> None:
        """Raises `InvalidArgumentError` for a file that cannot be used."""
        self._callers: WatchedFile[Callers] = WatchedFile(
            callers_file, parse_callers, setting="AUTHZ_CALLERS_FILE", holds="callers"
        )

    def authenticate(self, transport: Transport) -> Principal | None:
        """A certificate whose name is not known is refused, not ignored."""
        pem = transport.certificate()
        if not pem:
            return None
        certificate = read_certificate(pem)
        if time.time() >= certificate.ends_at_s:
            raise invalid("the client certificate has ended; renew it, and connect again")
        if certificate.name is None:
            raise invalid(
                "the client certificate must have exactly one URI, or without any exactly one DNS name"
            )
        caller = self._callers.value().get(certificate.name)
        if caller is None:
            kind, name = certificate.name
            raise invalid(
                f"no caller is known by the {kind} `{name}` of the client certificate; an operator can add it"
                " to AUTHZ_CALLERS_FILE"
            )
        return caller
