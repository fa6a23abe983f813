"""What the client shows of itself besides a certificate: a token or a JWT, with each call."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from authz.domain.addresses import is_local
from authz.domain.errors import malformed

_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
"""Source: RFC 6750, 2.1."""


def bearer(token: str) -> str:
    """The header that shows a token. Raises `InvalidArgumentError` for text that cannot be one."""
    if not _TOKEN.fullmatch(token):
        raise malformed(
            "token", "is empty, or is more than a token or a JWT; give exactly what its issuer printed"
        )
    return f"Bearer {token}"


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
