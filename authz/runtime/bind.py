"""Binds the address of a server, loads its certificates, and ends its connections."""

from __future__ import annotations

import os
import socket
import ssl
import stat
from contextlib import suppress
from pathlib import Path

import grpc

from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.runtime.settings import PREFIX, Settings


def listen(server: grpc.aio.Server, settings: Settings) -> str:
    """Bind the address of the settings; return it with the port that was bound.

    Raises `InvalidArgumentError` that names the setting.
    """
    address = settings.address
    credentials = _credentials(settings) if settings.tls_key_file else None
    try:
        if credentials is not None:
            port = server.add_secure_port(address, credentials)
        else:
            port = server.add_insecure_port(address)
    except RuntimeError:
        sharing = "" if settings.follow else " (only servers that run with `--no-follow` share it)"
        raise _fault(
            "address",
            f"cannot listen at `{address}`: it is in use{sharing}, or not an address; set AUTHZ_ADDRESS",
        ) from None
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"


def reserve(address: str) -> tuple[socket.socket, str]:
    """Bind a port for workers that share it; return the socket that keeps it, and the address with that port.

    Raises `InvalidArgumentError` for an address that is in use or cannot be shared.
    """
    host, _, port = address.rpartition(":")
    if address.startswith("unix:"):
        raise _cannot_share(address, "processes cannot share a Unix socket")
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as exclusive:
            # A shared bind would also succeed next to another service that shares: try without sharing first.
            exclusive.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            exclusive.bind(target)
        shared = socket.socket(family, kind, protocol)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind(target)
    except (OSError, ValueError) as error:
        raise _cannot_share(address, str(error)) from None
    return shared, f"{host}:{shared.getsockname()[1]}"


def abort_connections(address: str) -> None:
    """Close every connection that this process accepted at an address that it listens at.

    Clients see UNAVAILABLE for calls without an answer, and try again elsewhere. gRPC itself answers a call
    that reaches it while it stops with CANCELLED, which says that the client gave up.
    Source: https://github.com/grpc/grpc/issues/41785
    """
    for descriptor in map(int, os.listdir("/dev/fd")):  # noqa: PTH208  names of descriptors, not of files
        with suppress(OSError):  # closed meanwhile
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                # gRPC may close its own at any time: only a duplicate is certain to stay what it is.
                with socket.socket(fileno=os.dup(descriptor)) as connection:
                    _shut_down_if_at(address, connection)


def _shut_down_if_at(address: str, connection: socket.socket) -> None:
    """Shut down a connection that was accepted at the address. Raises `OSError` for a socket without peer."""
    if connection.type == socket.SOCK_STREAM and connection.getpeername() is not None:
        name = connection.getsockname()
        own = f"unix:{name}" if isinstance(name, str) else f":{name[1]}"
        if address.replace("unix://", "unix:").endswith(own):
            connection.shutdown(socket.SHUT_RDWR)


def _cannot_share(address: str, cause: str) -> InvalidArgumentError:
    return _fault(
        "address", f"workers cannot listen at `{address}`: {cause}; set AUTHZ_ADDRESS to a free host:port"
    )


def _credentials(settings: Settings) -> grpc.ServerCredentials:
    certificate, key = settings.tls_certificate_file, settings.tls_key_file
    client_ca = settings.tls_client_ca_file
    # For files that it cannot use, gRPC reports only that it cannot listen.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, ValueError, OSError) as error:
        raise _fault(
            "tls_certificate_file",
            f"`{certificate}` and `{key}` are not a PEM chain and its key, without a password ({error});"
            " set AUTHZ_TLS_CERTIFICATE_FILE and AUTHZ_TLS_KEY_FILE",
        ) from None
    if client_ca:
        try:
            context.load_verify_locations(client_ca)
        except (ssl.SSLError, OSError) as error:
            raise _fault(
                "tls_client_ca_file",
                f"`{client_ca}` holds no PEM certificate ({error}); set AUTHZ_TLS_CLIENT_CA_FILE",
            ) from None
    return grpc.ssl_server_credentials(
        [(Path(key).read_bytes(), Path(certificate).read_bytes())],
        root_certificates=Path(client_ca).read_bytes() if client_ca else None,
        require_client_auth=bool(client_ca),
    )


def _fault(setting: str, message: str) -> InvalidArgumentError:
    return InvalidArgumentError(ErrorReason.MALFORMED_FIELD, message, field=PREFIX + setting.upper())
