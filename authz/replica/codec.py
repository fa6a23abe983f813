"""How the records of a kind are stored in a replica, unless the kind has a way of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, TypeAlias

import lmdb
import msgspec

from authz.domain.entities import Kind
from authz.domain.instants import Instant
from authz.domain.kinds.fields import FieldType
from authz.domain.ports import Dump
from authz.replica.layout import (
    number_key,
    pack_id,
    read_number,
    read_ref,
    read_scope,
    read_subject,
    ref_key,
    scope_key,
    subject_key,
    unpack_id,
)
from authz.replica.scans import scan_prefix

Pair: TypeAlias = tuple[bytes, bytes]
Encoder: TypeAlias = Callable[[Any], bytes]

_ENCODERS: dict[FieldType, Encoder] = {
    FieldType.SUBJECT: subject_key,
    FieldType.SCOPE: scope_key,
    FieldType.RESOURCE: ref_key,
    FieldType.NUMBER: number_key,
}
_DECODERS: dict[FieldType, Callable[[bytes, int], tuple[Any, int]]] = {
    FieldType.SUBJECT: read_subject,
    FieldType.SCOPE: read_scope,
    FieldType.RESOURCE: read_ref,
    FieldType.NUMBER: read_number,
}
"""Any other field of a key is an id."""


class Databases:
    """The databases of one write transaction, by name."""

    def __init__(self, transaction: lmdb.Transaction, by_name: Mapping[str, lmdb._Database]) -> None:
        self._transaction = transaction
        self._by_name = by_name
        self.committed_at: Instant = 0
        """When the change was committed that is being applied."""

    def get(self, name: str, key: bytes) -> bytes:
        """The value of a key; empty if there is none."""
        return bytes(self._transaction.get(key, b"", self._by_name[name]))

    def put(self, name: str, key: bytes, value: bytes = b"") -> None:
        """Store a value in place of what is under the key."""
        self._transaction.put(key, value, db=self._by_name[name])

    def delete(self, name: str, key: bytes) -> None:
        """Delete what is under a key, if anything is."""
        self._transaction.delete(key, db=self._by_name[name])

    def pop_keys_before(self, name: str, end: bytes) -> Iterator[bytes]:
        """Delete the keys below a key, ascending, and give each when it is deleted."""
        with self._transaction.cursor(self._by_name[name]) as cursor:
            while cursor.first() and (key := bytes(cursor.key())) < end:
                cursor.delete()
                yield key

    def has_prefix(self, name: str, prefix: bytes) -> bool:
        """Whether any key begins with these bytes, and goes on."""
        return any(scan_prefix(self._transaction, self._by_name[name], prefix))


class Index:
    """A database by which records are found: a key is one of their fields and then the others of their key.
    The values of a covering index are the records, so that a scan of it reads no other database; those of
    any other index are empty."""

    def __init__(
        self, database: str, fields: Sequence[str], encoders: Mapping[str, Encoder], *, covering: bool
    ) -> None:
        self.database = database
        self.fields = fields
        self.is_covering = covering
        self.value_of = attrgetter(fields[0])
        """Of an entity, what it is found by; None for an entity that is not in the index."""
        self.key_of = _concatenation((attrgetter(name), encoders[name]) for name in fields)
        self._encode = encoders[fields[0]]
        self._rest_of = _concatenation((itemgetter(n), encoders[fields[n]]) for n in range(1, len(fields)))

    def pairs(self, rows: Iterable[tuple[Any, ...]], record_of: Callable[[bytes], bytes]) -> Iterator[Pair]:
        """The index of entities whose `fields` come sorted, nearly in order, without repeats in a row.
        `record_of` gives the record of a key, which is what follows the field in a covering index."""
        last = b""
        for value, found in groupby(rows, itemgetter(0)):
            head = self._encode(value)
            for row in found:
                rest = self._rest_of(row)
                key = head + rest
                if key != last:
                    yield key, record_of(rest) if self.is_covering else b""
                last = key


class Codec:
    """One database that holds the records of a kind by key, and one for each index.

    A key is the fields `key`, one after the other. A record is the other fields as MessagePack. `lookups` are
    the fields by which records are found besides the first of the key; each has an index. That of `covering`,
    which is no field of the key, has the records, too.
    """

    def __init__(
        self,
        kind: Kind,
        *,
        key: tuple[str, ...] = (),
        lookups: tuple[str, ...] = (),
        covering: str = "",
    ) -> None:
        self.kind = kind
        self.database = kind.plural
        lookups = lookups or kind.lookups
        key_fields = {field.name for field in kind.key_fields}
        key = key or tuple(field.name for field in kind.key_fields)
        encoders = {field.name: _ENCODERS.get(field.type, pack_id) for field in kind.fields}
        self.key_of = _concatenation((attrgetter(name), encoders[name]) for name in key)
        """The key of an entity, or of the key of one."""
        self.indexes = [
            Index(
                f"{kind.plural}_by_{name}",
                [name, *(other for other in key if other != name)],
                encoders,
                covering=name == covering,
            )
            for name in lookups
        ]
        self._key_decoders = [(f.name, _DECODERS.get(f.type, unpack_id)) for f in kind.key_fields]
        is_fixed = set(lookups) <= key_fields | {kind.container.field if kind.container else ""}
        self._reindexes = bool(covering) or not is_fixed
        """Whether a change of an entity may change an index."""
        self._others = [field.name for field in kind.other_fields]
        hints = {info.name: info.type for info in msgspec.structs.fields(kind.entity)}
        values: Any = tuple
        self.decode = msgspec.msgpack.Decoder(values[tuple(hints[name] for name in self._others)]).decode
        """The fields of a record."""

    def record_of(self, entity: Any, _before: bytes) -> bytes:
        """The record of an entity, in place of the one before, which is empty for none."""
        return msgspec.msgpack.encode([getattr(entity, name) for name in self._others])

    def rest_of(self, _entity: Any, _before: bytes) -> bytes:
        """The rest of a record after an entity was deleted from it; empty if there is none."""
        return b""

    def read(self, key: bytes, record: bytes) -> Any:
        """The entity of a record."""
        found: dict[str, Any] = dict(zip(self._others, self.decode(record), strict=True))
        start = 0
        for name, decode in self._key_decoders:
            found[name], start = decode(key, start)
        return self.kind.entity(**found)

    def put(self, databases: Databases, entity: Any) -> None:
        """Store an entity in place of the one with its key."""
        key = self.key_of(entity)
        before = databases.get(self.database, key)
        record = self.record_of(entity, before)
        databases.put(self.database, key, record)
        if before:
            if not self._reindexes:
                return
            self._unindex(databases, self.read(key, before))
        for index in self.indexes:
            if index.value_of(entity) is not None:
                databases.put(index.database, index.key_of(entity), record if index.is_covering else b"")

    def remove(self, databases: Databases, entity: Any) -> None:
        """Delete an entity, if it is there."""
        key = self.key_of(entity)
        if rest := self.rest_of(entity, databases.get(self.database, key)):
            databases.put(self.database, key, rest)
        else:
            databases.delete(self.database, key)
            self._unindex(databases, entity)

    def pairs(self, dump: Dump) -> Iterator[Pair]:
        """All keys with their records, nearly in order: packed ids do not sort where their text does."""
        return ((self.key_of(entity), self.record_of(entity, b"")) for entity in dump.entities(self.kind))

    def _unindex(self, databases: Databases, entity: Any) -> None:
        for index in self.indexes:
            if index.value_of(entity) is not None:
                databases.delete(index.database, index.key_of(entity))


def _concatenation(parts: Iterable[tuple[Callable[[Any], Any], Encoder]]) -> Encoder:
    """An encoder that concatenates the values that some getters read off a record."""
    parts = list(parts)
    return lambda record: b"".join([encode(get(record)) for get, encode in parts])
