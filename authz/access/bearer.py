"""Bearer credentials in the header `authorization`: access tokens of this service, and JWTs."""

from __future__ import annotations

from typing import Protocol

from authz.access.authentication import Authenticator, Transport, invalid
from authz.access.principal import Principal
from authz.domain.kinds.access_token import TOKEN_PREFIX

HEADER = "authorization"
_SCHEME = "bearer "
_NO_TOKENS = "this server accepts no access tokens; an operator can change that with AUTHZ_ACCESS_TOKENS"
_NO_JWTS = (
    f"the credential does not begin with `{TOKEN_PREFIX}`, as access tokens do, and this server accepts no"
    " JWTs; an operator can change that with AUTHZ_JWT_ISSUER"
)


class Verifier(Protocol):
    """Verifies one form of bearer credential."""

    def verify(self, token: str, transport: Transport) -> Principal:
        """As `Authenticator.authenticate`, for the text after `Bearer`."""


class BearerAuthenticator(Authenticator):
    """The caller is the one that the credential in the header `authorization` proves."""

    def __init__(self, *, tokens: Verifier | None = None, jwts: Verifier | None = None) -> None:
        """None for a form that the server does not accept."""
        self._tokens, self._jwts = tokens, jwts

    def authenticate(self, transport: Transport) -> Principal | None:
        stated = transport.header_values(HEADER)
        if len(stated) > 1:
            # A proxy that verifies one of them must not be followed by a server that verifies another.
            raise invalid("the header `authorization` is sent twice; send one, with one credential")
        if not stated or not stated[0]:
            return None
        header = stated[0]
        if header[: len(_SCHEME)].lower() != _SCHEME:
            raise invalid(
                "the header `authorization` has another scheme; send `Bearer` and an access token or a JWT"
            )
        credential = header[len(_SCHEME) :].strip()
        is_token = credential.startswith(TOKEN_PREFIX)  # a JWT never begins so
        verifier = self._tokens if is_token else self._jwts
        if verifier is None:
            raise invalid(_NO_TOKENS if is_token else _NO_JWTS)
        return verifier.verify(credential, transport)
