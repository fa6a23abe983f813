"""Idempotency keys: a repeated write gets the answer of the first."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete

from authz.domain.errors import ErrorReason, FailedPreconditionError
from authz.domain.instants import US_PER_S, Instant
from authz.domain.mutations import WriteRequest
from authz.store import tables
from authz.store.bulk import insert_rows, select_by_key

IDEMPOTENCY_RETENTION_US = 7 * 24 * 3600 * US_PER_S

_encoder = msgspec.json.Encoder()
_KNOWN = tables.idempotency_keys
_FORGET = delete(_KNOWN).where(_KNOWN.c.created_at < bindparam("before"))


class IdempotencyKeys:
    """The stored answers of some keys, with those of the writes so far in this transaction."""

    def __init__(self, connection: Connection, keys: Collection[str], *, now: Instant) -> None:
        self._connection = connection
        self._now = now
        self._known: dict[str, tuple[str, int]] = {}
        self._new: list[dict[str, Any]] = []
        if keys:
            connection.execute(_FORGET, {"before": now - IDEMPOTENCY_RETENTION_US})
            for row in select_by_key(connection, _KNOWN, [(key,) for key in keys]):
                self._known[row.key] = (row.digest, row.revision)

    def recall(self, request: WriteRequest) -> int | None:
        """The revision of the first write with the key of this write. None for a new key, or without a key.

        Raises `FailedPreconditionError` (IDEMPOTENCY_KEY_REUSED) if that write had another body.
        """
        key = request.idempotency_key
        if not key or key not in self._known:
            return None
        digest, revision = self._known[key]
        if digest != _digest(request):
            raise FailedPreconditionError(
                ErrorReason.IDEMPOTENCY_KEY_REUSED,
                f"idempotency key `{key}` was used for another write; make a new key for each write",
                idempotency_key=key,
            )
        return revision

    def remember(self, request: WriteRequest, revision: int) -> None:
        """Remember the revision as the answer to this write's key, if it has one."""
        key = request.idempotency_key
        if key:
            digest = _digest(request)
            self._known[key] = (digest, revision)
            self._new.append({"key": key, "digest": digest, "revision": revision, "created_at": self._now})

    def store(self) -> None:
        """Store the remembered answers."""
        insert_rows(self._connection, _KNOWN, self._new)


def _digest(request: WriteRequest) -> str:
    body = _encoder.encode((request.mutations, request.preconditions, request.reason))
    return hashlib.blake2b(body, digest_size=16).hexdigest()
