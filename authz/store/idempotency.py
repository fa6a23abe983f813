"""Idempotency keys: a write that a caller repeats gets the answer of the first."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import msgspec
from sqlalchemy import Connection

from authz.domain.errors import ErrorReason, FailedPreconditionError
from authz.domain.instants import Instant
from authz.domain.mutations import WriteRequest
from authz.store import tables
from authz.store.bulk import select_by_key, upsert_rows
from authz.store.database.sending import Sender

_encoder = msgspec.json.Encoder()
_KNOWN = tables.idempotency_keys


class IdempotencyKeys:
    """The stored answers of some keys, each with its caller, and of the writes so far in this transaction."""

    def __init__(self, connection: Connection, keys: Collection[tuple[str, str]], *, now: Instant) -> None:
        self._now = now
        self._known: dict[tuple[str, str], tuple[str, int]] = {}
        self._new: list[tuple[str | int, ...]] = []
        if keys:
            for row in select_by_key(connection, _KNOWN, list(keys)):
                self._known[row.actor, row.key] = (row.digest, row.revision)

    def recall(self, request: WriteRequest) -> int | None:
        """The revision of the first write with the key of this write. None for a new key, or without a key.

        Raises `FailedPreconditionError` (IDEMPOTENCY_KEY_REUSED) if that write had another body.
        """
        key = request.idempotency_key
        found = self._known.get((request.origin.actor, key)) if key else None
        if found is None:
            return None
        digest, revision = found
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
            self._known[request.origin.actor, key] = (digest, revision)
            self._new.append((request.origin.actor, key, digest, revision, self._now))

    @property
    def has_new(self) -> bool:
        """Whether there is an answer to store."""
        return bool(self._new)

    def store(self, sender: Sender) -> None:
        """Store the remembered answers."""
        upsert_rows(sender, _KNOWN, self._new)


def _digest(request: WriteRequest) -> str:
    # What was seen differs when the write is repeated.
    mutations = request.mutations
    if any(each.seen for each in mutations):
        mutations = tuple(msgspec.structs.replace(each, seen=None) for each in mutations)
    body = _encoder.encode((mutations, request.preconditions, request.origin.reason))
    return hashlib.blake2b(body, digest_size=16).hexdigest()
