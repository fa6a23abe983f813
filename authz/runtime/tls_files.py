"""The certificates of a server, taken up again whenever their files are renewed."""

from __future__ import annotations

import codecs
import ssl
from pathlib import Path
from typing import NamedTuple

import structlog

from authz.access.watched_file import file_version
from authz.domain.errors import InvalidArgumentError, invalid
from authz.runtime.settings import Settings
from authz.telemetry.metrics import RELOAD_FAILURES

log = structlog.get_logger()


class Certificates(NamedTuple):
    """The PEM of the chain, of its key and, if clients need certificates, of the authority of theirs."""

    chain: bytes
    key: bytes
    client_ca: bytes | None


class CertificateFiles:
    """The chain, the key and, if clients need certificates, the authority of theirs."""

    def __init__(self, settings: Settings) -> None:
        self._chain = settings.tls_certificate_file
        self._key = settings.tls_key_file
        self._client_ca = settings.tls_client_ca_file
        self._loaded = self._versions()

    def load_if_renewed(self) -> Certificates | None:
        """The new certificates; None if the files have not changed."""
        versions = self._versions()
        if versions == self._loaded:
            return None
        self._loaded = versions
        renewed = self.load_or_keep()
        if renewed is not None:
            log.info("certificate renewed", file=self._chain)
        return renewed

    def load_or_keep(self) -> Certificates | None:
        """Read the files; log why and return None if they cannot be used."""
        try:
            return self.load()
        except InvalidArgumentError as error:
            RELOAD_FAILURES.labels("certificate").inc()
            log.error("certificate not renewed; the old one stays", error=error.message)  # noqa: TRY400  says all
            return None

    def load(self) -> Certificates:
        """Read the files. Raises `InvalidArgumentError` that names the setting."""
        # For files that it cannot use, gRPC reports only that it cannot listen.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._chain, self._key, password=lambda: "")
        except (ssl.SSLError, ValueError, OSError) as error:
            raise invalid(
                "AUTHZ_TLS_CERTIFICATE_FILE",
                f"`{self._chain}` and `{self._key}` are not a PEM chain and its key, without a password"
                f" ({error}); set AUTHZ_TLS_CERTIFICATE_FILE and AUTHZ_TLS_KEY_FILE",
            ) from None
        if self._client_ca:
            try:
                context.load_verify_locations(self._client_ca)
            except (ssl.SSLError, OSError) as error:
                raise invalid(
                    "AUTHZ_TLS_CLIENT_CA_FILE",
                    f"`{self._client_ca}` holds no PEM certificate ({error}); set AUTHZ_TLS_CLIENT_CA_FILE",
                ) from None
        self._require_keys()
        return Certificates(
            chain=_read(self._chain),
            key=_read(self._key),
            client_ca=_read(self._client_ca) if self._client_ca else None,
        )

    def _require_keys(self) -> None:
        from authz.runtime.certificate_keys import require_shown, require_verified

        require_shown(self._chain)
        if self._client_ca:
            require_verified(self._client_ca)

    def _versions(self) -> list[tuple[int, int, int] | None]:
        return [*map(file_version, filter(None, (self._chain, self._key, self._client_ca)))]


def _read(path: str) -> bytes:
    """The content of a file. Without a byte order mark, as editors on Windows write it: the OpenSSL of Python
    ignores one, and the BoringSSL of Envoy and gRPC finds no certificate behind it."""
    return Path(path).read_bytes().removeprefix(codecs.BOM_UTF8)
