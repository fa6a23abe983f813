"""Proofs about the trees of the change log and of the decisions, and the newest signed checkpoint of them."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, select, update

from authz.domain.errors import malformed
from authz.domain.proofs import (
    AuditLog,
    Checkpoints,
    ConsistencyProof,
    InclusionProof,
    Proofs,
    SignedCheckpoint,
)
from authz.domain.tree import EMPTY_ROOT, consistency_ranges, inclusion_ranges
from authz.store import tables
from authz.store.database.engine import bounded_read_transaction, read_transaction, write_transaction
from authz.store.log.decision_leaves import entries_of, leaf_content
from authz.store.log.leaves import LeafMaker
from authz.store.log.reader import read_head
from authz.store.log.stored_tree import CHANGES, DECISIONS, range_hashes
from authz.store.log.verification import contents

T = TypeVar("T", bytes, tuple[bytes, ...])

_MAX_CONTENT_BYTES = 1 << 20
_FIELDS, _checkpoints = SignedCheckpoint.__struct_fields__, tables.checkpoints
_STORED = {AuditLog.CHANGES: CHANGES, AuditLog.DECISIONS: DECISIONS}


class SqlProofs(Proofs):
    """A `Proofs` in SQLite or PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def size(self, log: AuditLog) -> int:
        with read_transaction(self._engine) as connection:
            return _size(connection, log)

    def root(self, log: AuditLog, size: int) -> bytes:
        with read_transaction(self._engine) as connection:
            if size > (most := _size(connection, log)):
                raise malformed("size", f"is {size}, and the tree has {most}")
            return range_hashes(connection, _STORED[log], [(0, size)])[0] if size else EMPTY_ROOT

    def inclusion(self, log: AuditLog, number: int, size: int) -> InclusionProof:
        with bounded_read_transaction(self._engine) as connection:
            _require_size("tree_size", size, _size(connection, log))
            _require("number", number, least=1, most=size)
            ranges = [(number - 1, number), *inclusion_ranges(number, size)]
            leaf, *hashes = range_hashes(connection, _STORED[log], ranges)
            content, changes = _CONTENT[log](connection, number)
        return InclusionProof(number, size, leaf, tuple(hashes), _bounded(content), _bounded(changes))

    def consistency(self, log: AuditLog, first: int, second: int) -> ConsistencyProof:
        with bounded_read_transaction(self._engine) as connection:
            _require_size("second_size", second, _size(connection, log))
            _require("first_size", first, least=1, most=second)
            hashes = range_hashes(connection, _STORED[log], consistency_ranges(first, second))
        return ConsistencyProof(first, second, tuple(hashes))


class SqlCheckpoints(Checkpoints):
    """A `Checkpoints` in SQLite or PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def newest(self) -> SignedCheckpoint:
        with read_transaction(self._engine) as connection:
            row = connection.execute(select(*(_checkpoints.c[name] for name in _FIELDS))).one()
        published_to = frozenset(json.loads(row.published_to))
        return SignedCheckpoint(**{**row._mapping, "published_to": published_to})

    def replace(self, seen: SignedCheckpoint, by: SignedCheckpoint) -> bool:
        same = (_checkpoints.c[name] == value for name, value in _values(seen).items())
        with write_transaction(self._engine) as connection:
            return connection.execute(update(_checkpoints).where(*same).values(**_values(by))).rowcount == 1


def _values(checkpoint: SignedCheckpoint) -> dict[str, Any]:
    names = json.dumps(sorted(checkpoint.published_to))
    return msgspec.structs.asdict(checkpoint) | {"published_to": names}


def _size(connection: Connection, log: AuditLog) -> int:
    if log is AuditLog.CHANGES:
        return read_head(connection).revision
    size: int = connection.execute(select(tables.decision_tree.c.size)).scalar_one()
    return size


def _revision(connection: Connection, number: int) -> tuple[bytes, tuple[bytes, ...]]:
    """What is hashed of a revision and of its changes; empty if it is gone."""
    table = tables.leaves
    for head, rows in contents(connection, tables.revisions.c.revision == number):
        stored = connection.execute(select(table).where(table.c.revision == number)).one()
        leaf = LeafMaker(connection).leaf(head, rows, stored)
        return leaf.content, tuple(each.content for each in leaf.changes if each.content)
    return b"", ()


def _batch(connection: Connection, number: int) -> tuple[bytes, tuple[bytes, ...]]:
    """What is hashed of a batch of decisions; empty if it was purged."""
    table = tables.decision_leaves
    leaf = connection.execute(select(table).where(table.c.number == number)).one()
    entries = entries_of(connection, leaf)
    return leaf_content(LeafMaker(connection), number, entries) if entries else b"", ()


_CONTENT = {AuditLog.CHANGES: _revision, AuditLog.DECISIONS: _batch}


def _require_size(field: str, size: int, most: int) -> None:
    if size > most:
        problem = "if it is that of a checkpoint, the end of the log was cut off"
        raise malformed(field, f"is {size}, and the tree has {most}; {problem}")
    _require(field, size, least=1, most=most)


def _bounded(content: T) -> T:
    """The content, or all contents together, unless that is too large for an answer."""
    size_bytes = len(content) if isinstance(content, bytes) else sum(map(len, content))
    return content if size_bytes <= _MAX_CONTENT_BYTES else type(content)()


def _require(field: str, value: int, *, least: int, most: int) -> None:
    if not least <= value <= most:
        raise malformed(field, f"is {value}; name one from {least} to {most}")
