"""Bearer credentials in the header `authorization`."""

from __future__ import annotations

from typing import Protocol

from authz.access.authentication import Transport, invalid
from authz.access.principal import Principal

HEADER = "authorization"
_SCHEME = "bearer "


class Verifier(Protocol):
    """Verifies a bearer credential."""

    def verify(self, token: str, transport: Transport) -> Principal:
        """As `Authenticator.authenticate`, for the text after `Bearer`."""


class BearerAuthenticator:
    """The caller is the one that the credential in the header `authorization` proves."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    def authenticate(self, transport: Transport) -> Principal | None:
        """As `Authenticator.authenticate`."""
        header = transport.header(HEADER)
        if not header:
            return None
        if header[: len(_SCHEME)].lower() != _SCHEME:
            raise invalid("the header `authorization` has another scheme; send `Bearer` and a JWT")
        return self._verifier.verify(header[len(_SCHEME) :].strip(), transport)
