"""How the records of a kind are stored in a replica, unless the kind has a way of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any

import lmdb
import msgspec

from authz.domain.entities import Kind
from authz.domain.kinds.fields import FieldType
from authz.domain.ports import Dump
from authz.replica.layout import (
    pack_id,
    read_ref,
    read_scope,
    read_subject,
    ref_key,
    scope_key,
    subject_key,
    unpack_id,
)

Pair = tuple[bytes, bytes]

_ENCODERS: dict[FieldType, Callable[[Any], bytes]] = {
    FieldType.SUBJECT: subject_key,
    FieldType.SCOPE: scope_key,
    FieldType.RESOURCE: ref_key,
}
_DECODERS: dict[FieldType, Callable[[bytes, int], tuple[Any, int]]] = {
    FieldType.SUBJECT: read_subject,
    FieldType.SCOPE: read_scope,
    FieldType.RESOURCE: read_ref,
}
"""Any other field of a key is an id."""


class Databases:
    """The databases of one write transaction, by name."""

    def __init__(self, transaction: lmdb.Transaction, by_name: Mapping[str, lmdb._Database]) -> None:
        self._transaction = transaction
        self._by_name = by_name

    def get(self, name: str, key: bytes) -> bytes:
        """What is stored under a key, empty for nothing."""
        return bytes(self._transaction.get(key, b"", self._by_name[name]))

    def put(self, name: str, key: bytes, value: bytes = b"") -> None:
        """Store a value in place of what is under the key."""
        self._transaction.put(key, value, db=self._by_name[name])

    def delete(self, name: str, key: bytes) -> None:
        """Delete what is under a key, if anything is."""
        self._transaction.delete(key, db=self._by_name[name])

    def has_prefix(self, name: str, prefix: bytes) -> bool:
        """Whether any key begins with these bytes."""
        with self._transaction.cursor(self._by_name[name]) as cursor:
            return bool(cursor.set_range(prefix)) and bytes(cursor.key()).startswith(prefix)


class Codec:
    """One database that holds the records of a kind by key, and one for each index.

    A key is the fields `key`, one after the other. A record is the other fields as MessagePack. `indexes`
    names the database for each field by which records are found besides the first of the key: its keys are
    that field and then the others of the key, its values are empty. `encoders` are for fields that are not
    written as their type says.
    """

    def __init__(
        self,
        kind: Kind,
        database: str = "",
        *,
        key: tuple[str, ...] = (),
        indexes: Mapping[str, str] | None = None,
        encoders: Mapping[str, Callable[[Any], bytes]] | None = None,
    ) -> None:
        self.kind = kind
        self.database = database or kind.plural
        self.key = key or tuple(field.name for field in kind.key_fields)
        self.indexes = (
            {name: f"{self.database}_by_{name}" for name in kind.lookups} if indexes is None else indexes
        )
        self._encoders = {field.name: _ENCODERS.get(field.type, pack_id) for field in kind.fields}
        self._encoders |= encoders or {}
        outside_key = set(self.indexes) - {field.name for field in kind.key_fields}
        self._key_names_indexes = not outside_key
        self._moves_in_indexes = bool(outside_key - {kind.container.field if kind.container else ""})
        self._others = tuple(field.name for field in kind.other_fields)
        hints = {info.name: info.type for info in msgspec.structs.fields(kind.entity)}
        values: Any = tuple
        self._decoder = msgspec.msgpack.Decoder(values[tuple(hints[name] for name in self._others)])

    def key_of(self, record: Any) -> bytes:
        """The key of an entity, or of the key of one."""
        return self._encode(record, self.key)

    def record_of(self, entity: Any, _before: bytes) -> bytes:
        """The record of an entity, in place of the one before, which is empty for none."""
        return msgspec.msgpack.encode([getattr(entity, name) for name in self._others])

    def rest_of(self, _key: Any, _before: bytes) -> bytes:
        """What stays of a record when the entity with a key is deleted: empty for nothing."""
        return b""

    def read(self, key: bytes, record: bytes) -> Any:
        """The entity of a record, as far as the replica has it."""
        found: dict[str, Any] = dict(zip(self._others, self._decoder.decode(record), strict=True))
        start = 0
        for field in self.kind.key_fields:
            found[field.name], start = _DECODERS.get(field.type, unpack_id)(key, start)
        return self.kind.entity(**found)

    def put(self, databases: Databases, entity: Any) -> None:
        """Store an entity in place of the one with its key."""
        key = self.key_of(entity)
        before = databases.get(self.database, key)
        if before and self._moves_in_indexes:
            for name, index_key in self._index_keys(self.read(key, before)):
                databases.delete(name, index_key)
        databases.put(self.database, key, self.record_of(entity, before))
        for name, index_key in self._index_keys(entity):
            databases.put(name, index_key)

    def remove(self, databases: Databases, key: Any) -> None:
        """Delete the entity with a key, if there is one."""
        packed = self.key_of(key)
        before = databases.get(self.database, packed)
        if not before:
            return
        if rest := self.rest_of(key, before):
            databases.put(self.database, packed, rest)
            return
        databases.delete(self.database, packed)
        record = key if self._key_names_indexes else self.read(packed, before)
        for name, index_key in self._index_keys(record):
            databases.delete(name, index_key)

    def pairs(self, dump: Dump) -> Iterator[Pair]:
        """All keys with their records, nearly in order: packed ids do not sort where their text does."""
        return ((self.key_of(entity), self.record_of(entity, b"")) for entity in dump.entities(self.kind))

    def index_pairs(self, dump: Dump, field: str) -> Iterator[Pair]:
        """All keys of an index, likewise, without repeats in a row."""
        others = [name for name in self.key if name != field]
        encoders = [self._encoders[name] for name in others]
        last = b""
        for holder, found in groupby(dump.values(self.kind, [field, *others]), itemgetter(0)):
            head = self._encoders[field](holder)
            for _, *values in found:
                key = head + b"".join([encode(value) for encode, value in zip(encoders, values, strict=True)])
                if key != last:
                    yield key, b""
                last = key

    def _index_keys(self, record: Any) -> Iterator[tuple[str, bytes]]:
        for field, database in self.indexes.items():
            if getattr(record, field) is not None:
                yield database, self._encode(record, (field, *(name for name in self.key if name != field)))

    def _encode(self, record: Any, names: Iterable[str]) -> bytes:
        return b"".join([self._encoders[name](getattr(record, name)) for name in names])
