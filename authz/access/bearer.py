"""Bearer credentials in the header `authorization`: tokens of this service, and JWTs."""

from __future__ import annotations

from typing import Protocol

from authz.access.authentication import Transport, invalid
from authz.access.principal import Principal

HEADER = "authorization"
PREFIX = "authz_"
"""How a token of this service begins; a JWT never does."""
_SCHEME = "bearer "


class Verifier(Protocol):
    """Verifies one form of bearer credential."""

    def verify(self, token: str, transport: Transport) -> Principal:
        """As `Authenticator.authenticate`, for the text after `Bearer`."""


class BearerAuthenticator:
    """The caller is the one that the credential in the header `authorization` proves."""

    def __init__(self, *, tokens: Verifier | None, jwts: Verifier | None) -> None:
        """None for a form that the server does not accept."""
        self._tokens, self._jwts = tokens, jwts

    def authenticate(self, transport: Transport) -> Principal | None:
        """As `Authenticator.authenticate`."""
        header = transport.header(HEADER)
        if not header:
            return None
        if header[: len(_SCHEME)].lower() != _SCHEME:
            raise invalid("the header `authorization` has another scheme; send `Bearer` and a token or a JWT")
        credential = header[len(_SCHEME) :].strip()
        verifier = self._tokens if credential.startswith(PREFIX) else self._jwts
        if verifier is None:
            form = "tokens" if credential.startswith(PREFIX) else "JWTs"
            raise invalid(f"this server accepts no {form}")
        return verifier.verify(credential, transport)
