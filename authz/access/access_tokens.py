"""Access tokens of this service: the caller is the one that the record of a token names."""

from __future__ import annotations

from hmac import compare_digest
from typing import Protocol

from authz.access.authentication import Transport, invalid
from authz.access.principal import Principal
from authz.domain.entities import AccessToken
from authz.domain.instants import Instant
from authz.domain.kinds.access_token import digest_of, token_id


class AccessTokens(Protocol):
    """Where the records are. Reading one never waits."""

    def find(self, id_: str) -> tuple[AccessToken | None, Instant]:
        """The record with an id in the newest state, None without one, and the time that it is judged by.

        Raises `UnavailableError` while no state can be read.
        """


class AccessTokenVerifier:
    """Says which caller a token proves. A token that is revoked proves nothing from that revision on."""

    def __init__(self, tokens: AccessTokens) -> None:
        self._tokens = tokens

    def verify(self, token: str, _transport: Transport) -> Principal:
        """The principal of a token. Raises as `Authenticator.authenticate`."""
        id_ = token_id(token)
        if id_ is None:
            raise invalid("the token is not whole; send it as `authz token create` printed it")
        record, now = self._tokens.find(id_)
        if record is None or not compare_digest(record.digest, digest_of(token)):
            raise invalid("the token is unknown or was revoked; create a new one with `authz token create`")
        if now >= record.ends_at:
            raise invalid("the token has ended; create a new one with `authz token create`")
        return Principal(record.subject)
