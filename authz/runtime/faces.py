"""What clients reach: grpc.aio, or the ASGI application that Envoy runs."""

from __future__ import annotations

from typing import Any, BinaryIO, Protocol

import grpc

from authz.api.asgi.server import AsgiServer
from authz.runtime.bind import abort_connections, cannot_listen, lock_socket
from authz.runtime.envoy_admin import EnvoyAdmin
from authz.runtime.settings import Settings
from authz.runtime.tls_files import CertificateFiles, Certificates
from authz.runtime.tuning import connection_limit


class Face(Protocol):
    """Takes calls at an address."""

    server: Any
    """A `grpc.aio.Server`, or an object with its methods, to which the calls are added before the start."""

    async def start(self) -> str:
        """Take calls from now on; return the address, with the port that was bound.

        Raises `InvalidArgumentError` that names the setting.
        """

    async def drain(self, limit_s: float) -> None:
        """Ask clients to reconnect to another server, and go on answering those that have not. Return once
        all have, and after `limit_s` at the latest."""

    async def stop(self) -> None:
        """Close every connection. Idempotent."""


class GrpcFace(Face):
    """grpc.aio in this process."""

    def __init__(self, settings: Settings) -> None:
        """Raises `InvalidArgumentError` for a certificate that cannot be used."""
        self._settings = settings
        self._credentials = _credentials(settings) if settings.tls_key_file else None
        self._address = settings.address
        self._lock: BinaryIO | None = None
        self.server = grpc.aio.server(options=_channel_options(settings))

    async def start(self) -> str:
        self._lock = lock_socket(self._settings.address)
        self._address = _listen(self.server, self._settings, self._credentials)
        await self.server.start()
        return self._address

    async def drain(self, limit_s: float) -> None:
        """As `Face.drain`, but asks nobody: gRPC sends GOAWAY only when it stops, and then cancels calls that
        it has not begun."""

    async def stop(self) -> None:
        abort_connections(self._address)
        await self.server.stop(0)
        if self._lock is not None:
            # gRPC has removed the socket.
            self._lock.close()
            self._lock = None


class AsgiFace(Face):
    """The application in an Envoy, which listens once the application has started, and ends with it."""

    def __init__(self, settings: Settings, admin: EnvoyAdmin | None = None) -> None:
        self._address = settings.address
        self._admin = admin
        self._lock: BinaryIO | None = None
        self.server = AsgiServer(max_message_bytes=settings.max_message_bytes)

    async def start(self) -> str:
        self._lock = lock_socket(self._address)
        return self._address

    async def drain(self, limit_s: float) -> None:
        if self._admin is not None:
            await self._admin.drain(limit_s)

    async def stop(self) -> None:
        """As `Face.stop`: the process ends next, and with it the lock."""


def _listen(server: grpc.aio.Server, settings: Settings, credentials: grpc.ServerCredentials | None) -> str:
    """Bind the address of the settings; return it with the port that was bound.

    Raises `InvalidArgumentError` that names the setting.
    """
    address = settings.address
    try:
        if credentials is not None:
            port = server.add_secure_port(address, credentials)
        else:
            port = server.add_insecure_port(address)
    except RuntimeError:
        sharing = "" if settings.follow else " (only servers that run with `--no-follow` share it)"
        problem = f"it is in use{sharing}, or not an address; set AUTHZ_ADDRESS"
        raise cannot_listen(address, problem) from None
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"


def _credentials(settings: Settings) -> grpc.ServerCredentials:
    """Credentials from the files of the settings, as they are at each handshake.

    Raises `InvalidArgumentError` for files that cannot be used now. Later ones change nothing but the log.
    """
    files = CertificateFiles(settings)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        found = files.load_if_renewed()
        return None if found is None else _configuration(found)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(files.load()),
        renewed,  # type: ignore[arg-type]  # it may return None, which the stubs do not know
        require_client_authentication=bool(settings.tls_client_ca_file),
    )


def _configuration(found: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(found.key, found.chain)], root_certificates=found.client_ca
    )


def _channel_options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", _ms(settings.keepalive_interval_s)),
        ("grpc.keepalive_timeout_ms", _ms(settings.keepalive_timeout_s)),
        # Of the pings by which gRPC measures a connection: else it waits a minute for their answer.
        ("grpc.http2.ping_timeout_ms", _ms(settings.keepalive_timeout_s)),
        # Clients keep idle connections through NAT and load balancers with pings.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(settings.min_ping_interval_s)),
        ("grpc.max_allowed_incoming_connections", connection_limit(settings.max_connections)),
        ("grpc.max_connection_age_ms", _ms(settings.max_connection_age_s)),
        # Ends calls whose request never arrives, which nothing else does. The longest calls end before.
        ("grpc.max_connection_age_grace_ms", _ms(max(settings.max_watch_s, settings.max_import_s))),
        ("grpc.max_concurrent_streams", settings.max_streams),
        # The first is the size from which on gRPC refuses at random, the second that of which it takes none.
        ("grpc.max_metadata_size", settings.max_header_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_header_bytes),
        # Servers that share one replica may share one port.
        ("grpc.so_reuseport", 0 if settings.follow else 1),
    ]


def _ms(duration_s: float) -> int:
    """For gRPC, which has no fractions and counts in 31 bits."""
    return min(max(1, round(duration_s * 1000)), 2**31 - 1)
