"""Hands the certificates of the server to Envoy, and those that renew them.

Envoy reads them from memory that only this process has (memfd), so that no key is written to a disk. A file
says where; Envoy watches it.
Source: https://www.envoyproxy.io/docs/envoy/v1.39.0/configuration/security/secret
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import structlog

from authz.runtime.handshakes import create_pipe
from authz.runtime.settings import Settings
from authz.runtime.tls_files import CertificateFiles, Certificates
from authz.telemetry.metrics import RELOAD_FAILURES

log = structlog.get_logger()

SERVER, CLIENTS = "server", "clients"
"""The certificate of the server, and the authority of those of clients."""
_RENEWAL_POLL_S = 1.0
_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


class Secrets:
    """Where Envoy finds its certificates, in its folder, and the pipe for refused handshakes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shown: list[int] = []
        """The descriptors that the files name."""

    @classmethod
    def create(cls, folder: Path, certificates: Certificates) -> Secrets:
        """These certificates, in an empty folder."""
        created = cls(folder)
        created._show(certificates)
        create_pipe(created.handshakes)
        return created

    def source(self, name: str) -> dict[str, Any]:
        """Where Envoy finds a secret, in its configuration."""
        path = {"path": str(self._path(name))}
        return {
            "name": name,
            "sds_config": {"path_config_source": path, "resource_api_version": "V3"},
        }

    @property
    def handshakes(self) -> Path:
        """The pipe into which Envoy writes refused handshakes."""
        return self._folder / "handshakes"

    async def renew_forever(self, settings: Settings) -> None:
        """Show new certificates to Envoy whenever their files have changed."""
        files = CertificateFiles(settings)
        # They may have changed since the folder was made.
        renewed = files.load_or_keep()
        while True:
            if renewed is not None:
                self._renew(renewed)
            await asyncio.sleep(_RENEWAL_POLL_S)
            renewed = files.load_if_renewed()

    def _renew(self, found: Certificates) -> None:
        try:
            self._show(found)
        except OSError as error:
            # Envoy watches this folder, and would see no other.
            RELOAD_FAILURES.labels("certificate").inc()
            log.error(  # noqa: TRY400  says all
                "certificate not renewed; restart the server",
                error=f"the folder by which Envoy knows its certificates cannot be written: {error}",
            )

    def _show(self, found: Certificates) -> None:
        before, self._shown = self._shown, []
        certificate = {"certificate_chain": self._held(found.chain), "private_key": self._held(found.key)}
        self._write(SERVER, {"tls_certificate": certificate})
        if found.client_ca:
            self._write(CLIENTS, {"validation_context": {"trusted_ca": self._held(found.client_ca)}})
        for descriptor in before:
            os.close(descriptor)

    def _held(self, content: bytes) -> dict[str, str]:
        # Without flags: the process that becomes Envoy keeps it.
        descriptor = os.memfd_create("certificate", 0)
        os.write(descriptor, content)
        self._shown.append(descriptor)
        return {"filename": f"/dev/fd/{descriptor}"}

    def _write(self, name: str, secret: dict[str, Any]) -> None:
        path = self._path(name)
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"resources": [{"@type": _TYPE, "name": name, **secret}]}))
        # Envoy looks at it again when a file is moved there.
        new.rename(path)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"
