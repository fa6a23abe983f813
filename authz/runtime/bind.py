"""Where a server listens, and with which certificates: what is wrong with either is told before it serves."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.runtime.settings import PREFIX, Settings


def listen(server: grpc.aio.Server, settings: Settings) -> str:
    """Take the port of the settings; return the address with the port that was taken.

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
        raise _fault(
            "address", f"cannot listen at `{address}`: it is in use or not an address; set AUTHZ_ADDRESS"
        ) from None
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"


def _credentials(settings: Settings) -> grpc.ServerCredentials:
    certificate, key = settings.tls_certificate_file, settings.tls_key_file
    client_ca = settings.tls_client_ca_file
    # gRPC says of files that it cannot use only that it cannot listen.
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
