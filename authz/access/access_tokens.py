"""Access tokens of this service: the caller is the one that the record of a token names."""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest

from authz.access.authentication import Transport, invalid
from authz.access.principal import Principal
from authz.domain.cache import BoundedCache
from authz.domain.entities import AccessToken
from authz.domain.instants import Instant
from authz.domain.kinds.access_token import digest_of, token_id
from authz.domain.ports import Snapshot
from authz.domain.tokens import ConsistencyToken

_MAX_CACHED = 1024


class AccessTokenVerifier:
    """Says which caller a token proves. A token that is revoked proves nothing from that revision on.

    Caches the tokens that it verified until the state changes.
    """

    def __init__(self, newest: Callable[[], tuple[Snapshot, Instant]]) -> None:
        """`newest` gives the newest state, and the time that it is judged by. Raises as `View.snapshot`."""
        self._newest = newest
        self._state: ConsistencyToken | None = None
        self._cache = BoundedCache[str, tuple[Principal, Instant]](_MAX_CACHED)

    def verify(self, token: str, _transport: Transport) -> Principal:
        """The principal of a token. Raises as `Authenticator.authenticate`."""
        snapshot, now = self._newest()
        if snapshot.state is not self._state:
            self._cache.clear()
            self._state = snapshot.state
        found = self._cache.get(token)
        if found is None:
            record = _record_of(token, snapshot)
            found = self._cache[token] = Principal(record.subject), record.ends_at
        principal, ends_at = found
        if now >= ends_at:
            raise invalid("the token has ended; create a new one with `authz token create`")
        return principal


def _record_of(token: str, snapshot: Snapshot) -> AccessToken:
    id_ = token_id(token)
    if id_ is None:
        raise invalid("the token is not whole; send it as `authz token create` printed it")
    record = snapshot.access_token(id_)
    if record is None or not compare_digest(record.digest, digest_of(token)):
        raise invalid("the token is unknown or was revoked; create a new one with `authz token create`")
    return record
