"""Opaque, signed tokens: a state as a consistency token, a position in a listing as a page token."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable

import msgspec

from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.instants import Instant

KEY_BYTES = 32
_MAC_BYTES = 16
_STATE, _PAGE = b"state", b"page"
"""What a token is for: a part of its signature, so that a token for one use is not valid for another.
Source: https://docs.python.org/3/library/hashlib.html#personalization"""


class ConsistencyToken(msgspec.Struct, frozen=True, array_like=True):
    """A state of one database at a revision.

    `database_id` identifies the database. A database that was restored, or failed over to a standby that was
    behind, uses a revision twice: the random `nonce` of each transaction tells the two apart. `committed_at`
    usually tells which is later, because it never decreases within a history. Both are 0 if unknown, and for
    revision 0.
    """

    database_id: str
    revision: int
    committed_at: Instant = 0
    nonce: int = 0

    def includes(self, other: ConsistencyToken) -> bool:
        """Whether this state is `other`, or comes after it in the same history of the same database."""
        return (
            self.revision >= other.revision
            and self.committed_at >= other.committed_at
            and self.database_id == other.database_id
            and (self.revision > other.revision or other.nonce in (0, self.nonce))
        )


class PageToken(msgspec.Struct, frozen=True, array_like=True):
    """Where a listing continues: after `last_key`, for the query with the digest `query`."""

    query: str
    last_key: tuple[str | int, ...]


def latest(token: str, other: str) -> str:
    """The later of two encoded states, as far as their holder can tell: `other`, unless `token` names a later
    state of the same history."""
    state, than = _unverified(token), _unverified(other)
    return token if state is not None and than is not None and state.includes(than) else other


def _unverified(token: str) -> ConsistencyToken | None:
    """The state that a token names, without verifying it. None for a token that cannot be read."""
    try:
        return msgspec.msgpack.decode(_decode(token)[_MAC_BYTES:], type=ConsistencyToken)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None


def query_digest(*parts: object) -> str:
    """What a page token remembers of the query that it belongs to."""
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=8).hexdigest()


class TokenKeys:
    """Signs tokens with the key of their database, so that nobody else can make one, and verifies them.

    A store and a replica add the key of each database of which they give a state, before they give it. For
    any thread.
    """

    def __init__(self) -> None:
        self._keys: dict[str, bytes] = {}

    def __contains__(self, database_id: object) -> bool:
        return database_id in self._keys

    def add(self, database_id: str, key: bytes) -> None:
        """Add the key of a database. Raises `ValueError` for a key of another length."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"a token key has {KEY_BYTES} bytes")
        self._keys[database_id] = key

    def sign(self, state: ConsistencyToken) -> str:
        """A state as URL-safe text."""
        return self._sign(_STATE, state.database_id, state)

    def verify(self, text: str, *, field: str = "consistency token") -> ConsistencyToken:
        """The state of a token. Raises `InvalidArgumentError` (MALFORMED_TOKEN) for any text that was not
        signed with a key that is known. Nothing is decoded before its signature is verified."""
        body = self._verified(_STATE, self._keys.values(), text, field=field)
        return msgspec.msgpack.decode(body, type=ConsistencyToken)

    def sign_page(self, database_id: str, page: PageToken) -> str:
        """A position in a listing of this database as URL-safe text."""
        return self._sign(_PAGE, database_id, page)

    def verify_page(self, database_id: str, text: str, *, query: str) -> PageToken:
        """The position of a page token. Raises `InvalidArgumentError` (MALFORMED_TOKEN) for any text that was
        not signed with the key of this database for this query."""
        body = self._verified(_PAGE, [self._keys[database_id]], text, field="page_token")
        page = msgspec.msgpack.decode(body, type=PageToken)
        if page.query != query:
            raise InvalidArgumentError(
                ErrorReason.MALFORMED_TOKEN,
                "page_token belongs to another query; keep the filters unchanged between pages",
                field="page_token",
            )
        return page

    def _sign(self, use: bytes, database_id: str, value: msgspec.Struct) -> str:
        body = msgspec.msgpack.encode(value)
        mac = _mac(use, self._keys[database_id], body)
        return base64.urlsafe_b64encode(mac + body).decode().rstrip("=")

    def _verified(self, use: bytes, keys: Iterable[bytes], text: str, *, field: str) -> bytes:
        raw = _decode(text)
        mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not any(hmac.compare_digest(mac, _mac(use, key, body)) for key in tuple(keys)):
            raise malformed_token(field)
        return body


def _mac(use: bytes, key: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_MAC_BYTES, key=key, person=use).digest()


def _decode(text: str) -> bytes:
    """The bytes of a token; empty if it is not well-formed."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""


def malformed_token(field: str) -> InvalidArgumentError:
    """The error for a token that this service did not issue for this use."""
    return InvalidArgumentError(
        ErrorReason.MALFORMED_TOKEN,
        f"{field} is not a token of this service, or it is of another database; send a token back unchanged",
        field=field,
    )
