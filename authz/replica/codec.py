"""How the records of a kind are stored in a replica, unless the kind has a way of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, TypeAlias

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

Pair: TypeAlias = tuple[bytes, bytes]
Encoder: TypeAlias = Callable[[Any], bytes]

_ENCODERS: dict[FieldType, Encoder] = {
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


class Index:
    """A database by which records are found: a key is one of their fields and then the others of their key.
    Its values are empty."""

    def __init__(self, database: str, fields: Sequence[str], encoders: Mapping[str, Encoder]) -> None:
        self.database = database
        self.fields = fields
        self.value_of = attrgetter(fields[0])
        """Of an entity, what it is found by; None for an entity that is not in the index."""
        self.key_of = _concatenation((attrgetter(name), encoders[name]) for name in fields)
        self._encode = encoders[fields[0]]
        self._rest_of = _concatenation((itemgetter(n), encoders[fields[n]]) for n in range(1, len(fields)))

    def pairs(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[Pair]:
        """The index of entities whose `fields` come sorted, nearly in order, without repeats in a row."""
        last = b""
        for value, found in groupby(rows, itemgetter(0)):
            head = self._encode(value)
            for row in found:
                key = head + self._rest_of(row)
                if key != last:
                    yield key, b""
                last = key


class Codec:
    """One database that holds the records of a kind by key, and one for each index.

    A key is the fields `key`, one after the other. A record is the other fields as MessagePack. `indexes`
    names the database for each field by which records are found besides the first of the key. `encoders` are
    for fields that are not encoded as their type says.
    """

    def __init__(
        self,
        kind: Kind,
        database: str = "",
        *,
        key: tuple[str, ...] = (),
        indexes: Mapping[str, str] | None = None,
        encoders: Mapping[str, Encoder] | None = None,
    ) -> None:
        self.kind = kind
        self.database = database or kind.plural
        if indexes is None:
            indexes = {name: f"{self.database}_by_{name}" for name in kind.lookups}
        key = key or tuple(field.name for field in kind.key_fields)
        by_type = {field.name: _ENCODERS.get(field.type, pack_id) for field in kind.fields}
        encoders = by_type | dict(encoders or {})
        self.key_of = _concatenation((attrgetter(name), encoders[name]) for name in key)
        """The key of an entity, or of the key of one."""
        self.indexes = [
            Index(database, [name, *(other for other in key if other != name)], encoders)
            for name, database in indexes.items()
        ]
        self._unnamed = set(indexes) - {field.name for field in kind.key_fields}
        """The fields of indexes that are not in the key, and so have to be read before a deletion."""
        self._moves = bool(self._unnamed - {kind.container.field if kind.container else ""})
        """Whether an entity can change its place in an index."""
        self._others = [field.name for field in kind.other_fields]
        hints = {info.name: info.type for info in msgspec.structs.fields(kind.entity)}
        values: Any = tuple
        self._decoder = msgspec.msgpack.Decoder(values[tuple(hints[name] for name in self._others)])

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
        databases.put(self.database, key, self.record_of(entity, before))
        if before:
            if not self._moves:
                return
            self._remove_from_indexes(databases, self.read(key, before))
        for index in self.indexes:
            if index.value_of(entity) is not None:
                databases.put(index.database, index.key_of(entity))

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
        self._remove_from_indexes(databases, self.read(packed, before) if self._unnamed else key)

    def pairs(self, dump: Dump) -> Iterator[Pair]:
        """All keys with their records, nearly in order: packed ids do not sort where their text does."""
        return ((self.key_of(entity), self.record_of(entity, b"")) for entity in dump.entities(self.kind))

    def _remove_from_indexes(self, databases: Databases, record: Any) -> None:
        for index in self.indexes:
            if index.value_of(record) is not None:
                databases.delete(index.database, index.key_of(record))


def _concatenation(parts: Iterable[tuple[Callable[[Any], Any], Encoder]]) -> Encoder:
    """What encodes the values that some getters read off a record, one after the other."""
    parts = list(parts)
    if len(parts) == 1:
        ((get, encode),) = parts
        return lambda record: encode(get(record))
    if len(parts) == 2:  # noqa: PLR2004  the most frequent, and twice as fast without a loop
        (get, encode), (get_second, encode_second) = parts
        return lambda record: encode(get(record)) + encode_second(get_second(record))
    return lambda record: b"".join([encode(get(record)) for get, encode in parts])
