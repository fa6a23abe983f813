"""Compares the records of a database with what its change log makes of them.

A replica that is rebuilt reads the records. So a record that somebody changed without the service would grant
access that the change log does not show.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from authz.domain.entities import Entity, Key
from authz.domain.mutations import Operation
from authz.store.engine import stream
from authz.store.mutation_json import decode_mutation
from authz.store.rows import ENTITY_ROWS

_CACHE_KIB = 256 * 1024
_HASH_BYTES = 16
_encode = msgspec.json.Encoder().encode
_keys: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Key)


class ReplayedRecords:
    """By key, the revision that last changed a record, and the hash of the record then. In a temporary file,
    because a log may be of more records than the memory holds. `compared` counts the records."""

    def __init__(self) -> None:
        self.compared = 0
        self._last = sqlite3.connect("", isolation_level=None)
        self._last.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._last.execute("CREATE TABLE last (key BLOB PRIMARY KEY, revision INTEGER, hash BLOB)")
        self._last.execute("BEGIN")

    def apply(self, revision: int, mutation: str) -> None:
        """Apply the next change of the log. One that cannot be read does nothing."""
        try:
            change = decode_mutation(mutation)
        except msgspec.MsgspecError:  # the revision is not as it was committed, which its leaf tells
            return
        key = _encode(change.key)
        if change.operation is Operation.DELETE:
            self._last.execute("DELETE FROM last WHERE key = ?", (key,))
        else:
            values = (key, revision, _hash(change.target))
            self._last.execute("INSERT OR REPLACE INTO last VALUES (?, ?, ?)", values)

    def differences(self, connection: Connection) -> Iterator[str]:
        """How the records of a database differ, after all changes of its log. Ends the replay."""
        for stored in ENTITY_ROWS.values():
            for rows in stream(connection, select(stored.table)).partitions():
                for record in stored.versioned(rows):
                    yield from self._compare(record.entity, record.version)
        for key, revision in self._last.execute("SELECT key, revision FROM last ORDER BY revision, key"):
            yield f"{_keys.decode(key)} of revision {revision} is gone"
        self._last.close()

    def _compare(self, entity: Entity, version: int) -> Iterator[str]:
        self.compared += 1
        key = _encode(entity.key)
        logged = self._last.execute("SELECT revision, hash FROM last WHERE key = ?", (key,)).fetchone()
        if logged is None:
            yield f"{entity.key} is not in the change log"
        elif logged != (version, _hash(entity)):
            yield f"{entity.key} is not as revision {logged[0]} made it"
        self._last.execute("DELETE FROM last WHERE key = ?", (key,))


def _hash(record: Entity | Key) -> bytes:
    return blake2b(_encode(record), digest_size=_HASH_BYTES).digest()
