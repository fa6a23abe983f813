"""Opaque tokens: a revision as a `ConsistencyToken`, a position in a listing as a page token."""

from __future__ import annotations

import base64
import binascii
import hashlib

import msgspec

from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.instants import Instant

_CHECK_LENGTH = 4


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
    last_key: tuple[str, ...]


def _seal(kind: bytes, value: msgspec.Struct) -> str:
    body = msgspec.msgpack.encode(value)
    check = hashlib.blake2b(kind + body, digest_size=_CHECK_LENGTH).digest()
    return base64.urlsafe_b64encode(check + body).decode().rstrip("=")


def _open(kind: bytes, text: str, *, field: str) -> bytes:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    body = raw[_CHECK_LENGTH:]
    if not body or hashlib.blake2b(kind + body, digest_size=_CHECK_LENGTH).digest() != raw[:_CHECK_LENGTH]:
        raise malformed_token(field)
    return body


def malformed_token(field: str) -> InvalidArgumentError:
    """The error for a token that this service did not issue for this use."""
    return InvalidArgumentError(
        ErrorReason.MALFORMED_TOKEN,
        f"{field} is not a token of this service; send a token back unchanged",
        field=field,
    )


def encode_consistency_token(token: ConsistencyToken) -> str:
    """Encode a token as URL-safe text."""
    return _seal(b"consistency", token)


def decode_consistency_token(text: str, *, field: str = "consistency token") -> ConsistencyToken:
    """Decode a token. Raises `InvalidArgumentError` (MALFORMED_TOKEN) for any other text."""
    try:
        return msgspec.msgpack.decode(_open(b"consistency", text, field=field), type=ConsistencyToken)
    except msgspec.DecodeError:
        raise malformed_token(field) from None


def encode_page_token(token: PageToken) -> str:
    """Encode a token as URL-safe text."""
    return _seal(b"page", token)


def decode_page_token(text: str, *, query: str) -> PageToken:
    """Decode a page token. Raises `InvalidArgumentError` (MALFORMED_TOKEN), also for one of another query."""
    try:
        token = msgspec.msgpack.decode(_open(b"page", text, field="page_token"), type=PageToken)
    except msgspec.DecodeError:
        raise malformed_token("page_token") from None
    if token.query != query:
        raise InvalidArgumentError(
            ErrorReason.MALFORMED_TOKEN,
            "page_token belongs to another query; keep the filters unchanged between pages",
            field="page_token",
        )
    return token
