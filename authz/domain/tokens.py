"""Opaque tokens: a revision as a `ConsistencyToken`, a place in a listing as a page token."""

from __future__ import annotations

import base64
import binascii
import hashlib

import msgspec

from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.instants import Instant

_CHECK_LENGTH = 4


class ConsistencyToken(msgspec.Struct, frozen=True, array_like=True):
    """A state of one database: what a revision of it holds.

    `database_id` tells databases apart. A database that was restored, or failed over to a standby that was
    behind, gives a number twice: a random `nonce` for each transaction
    tells the two apart. `committed_at` mostly tells which is later: within a history it never decreases. Both
    are 0 if unknown, and for revision 0.
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
    """Where a listing goes on: after `last_key`, for the query whose digest is `query`."""

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
    """The error for a token that this service did not give for this use."""
    return InvalidArgumentError(
        ErrorReason.MALFORMED_TOKEN,
        f"{field} is not a token of this service; send one back unchanged, as it was given",
        field=field,
    )


def encode_consistency_token(token: ConsistencyToken) -> str:
    """URL-safe text of a token."""
    return _seal(b"consistency", token)


def decode_consistency_token(text: str, *, field: str = "consistency token") -> ConsistencyToken:
    """Raises `InvalidArgumentError` (MALFORMED_TOKEN) for anything else than an encoded token."""
    try:
        return msgspec.msgpack.decode(_open(b"consistency", text, field=field), type=ConsistencyToken)
    except msgspec.DecodeError:
        raise malformed_token(field) from None


def encode_page_token(token: PageToken) -> str:
    """URL-safe text of a token."""
    return _seal(b"page", token)


def decode_page_token(text: str, *, query: str) -> PageToken:
    """Raises `InvalidArgumentError` (MALFORMED_TOKEN) also for a token of another query."""
    try:
        token = msgspec.msgpack.decode(_open(b"page", text, field="page_token"), type=PageToken)
    except msgspec.DecodeError:
        raise malformed_token("page_token") from None
    if token.query != query:
        raise InvalidArgumentError(
            ErrorReason.MALFORMED_TOKEN,
            "page_token belongs to another query; keep the filters unchanged while paging",
            field="page_token",
        )
    return token
