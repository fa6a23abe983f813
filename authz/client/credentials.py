"""What the client shows of itself besides a certificate: a token or a JWT, with each call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import msgspec

from authz.domain.addresses import is_local
from authz.domain.errors import malformed


def token_source(token: str | Callable[[], str], token_file: str) -> Callable[[], str] | None:
    """What gives the token for a call; None without one. Raises `InvalidArgumentError` for two of them.

    A file is read for each call, so that one that is renewed counts from the next call on.
    """
    if token and token_file:
        raise malformed("token", "is given twice; give a token or a file")
    if token_file:
        return lambda: Path(token_file).read_text().strip()
    if callable(token):
        return token
    return (lambda: token) if token else None


def require_private(target: str, *, is_encrypted: bool) -> None:
    """Raise `InvalidArgumentError` if a token would cross a network for everybody to read."""
    if not is_encrypted and not is_local(target):
        raise malformed(
            "token",
            f"would be sent unencrypted to `{target}`; set tls_ca_file"
            " (`--tls-ca-file`), or allow it (`--allow-plaintext-token`) if the network is encrypted",
        )


class _Details(msgspec.Struct, frozen=True):
    """A `grpc.ClientCallDetails`, which has no constructor."""

    method: str
    timeout: float | None
    metadata: list[tuple[str, str]]
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class BearerInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
):
    """Sends `authorization: Bearer <token>` with each call."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """As gRPC calls it."""
        return continuation(self._with_token(details), request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        """As gRPC calls it."""
        return continuation(self._with_token(details), request)

    def intercept_stream_unary(self, continuation: Any, details: Any, request_iterator: Any) -> Any:
        """As gRPC calls it."""
        return continuation(self._with_token(details), request_iterator)

    def _with_token(self, details: Any) -> _Details:
        metadata = [*(details.metadata or ()), ("authorization", f"Bearer {self._token()}")]
        return _Details(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
