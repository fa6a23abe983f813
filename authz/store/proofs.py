"""Proofs about the tree of the change log, from what is stored of it."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, select

from authz.domain.errors import malformed
from authz.domain.proofs import ConsistencyProof, InclusionProof
from authz.domain.tree import EMPTY_ROOT, consistency_ranges, inclusion_ranges
from authz.store import tables
from authz.store.engine import bounded_read_transaction, read_transaction
from authz.store.leaves import Attestor
from authz.store.log_reader import read_head
from authz.store.log_tree import complete_tree, contents
from authz.store.stored_tree import CHANGES, range_hashes

_MAX_CONTENT_BYTES = 1 << 20
_leaves = tables.leaves


class SqlProofs:
    """A `Proofs` in SQLite or PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def size(self) -> int:
        """See `Proofs.size`."""
        with read_transaction(self._engine) as connection:
            return read_head(connection).revision

    def root(self, size: int) -> bytes:
        """See `Proofs.root`."""
        with read_transaction(self._engine) as connection:
            _require("size", size, least=0, most=read_head(connection).revision)
            return range_hashes(connection, CHANGES, [(0, size)])[0] if size else EMPTY_ROOT

    def complete(self) -> None:
        """See `Proofs.complete`."""
        complete_tree(self._engine)

    def inclusion(self, number: int, size: int) -> InclusionProof:
        """See `Proofs.inclusion`."""
        with bounded_read_transaction(self._engine) as connection:
            _require("tree_size", size, least=1, most=read_head(connection).revision)
            _require("revision", number, least=1, most=size)
            leaf = range_hashes(connection, CHANGES, [(number - 1, number)])[0]
            hashes = range_hashes(connection, CHANGES, inclusion_ranges(number, size))
            content = _content(connection, number)
        return InclusionProof(number, size, leaf, tuple(hashes), content)

    def consistency(self, first: int, second: int) -> ConsistencyProof:
        """See `Proofs.consistency`."""
        with bounded_read_transaction(self._engine) as connection:
            _require("second_size", second, least=1, most=read_head(connection).revision)
            _require("first_size", first, least=1, most=second)
            hashes = range_hashes(connection, CHANGES, consistency_ranges(first, second))
        return ConsistencyProof(first, second, tuple(hashes))


def _content(connection: Connection, revision: int) -> bytes:
    """What is hashed of a revision; empty if it is gone, or too large for an answer."""
    for head, rows in contents(connection, tables.revisions.c.revision == revision):
        seals = connection.execute(select(_leaves.c.seals).where(_leaves.c.revision == revision)).scalar_one()
        content = Attestor(connection).leaf(head, rows, seals.split(" ")).content
        return content if len(content) <= _MAX_CONTENT_BYTES else b""
    return b""


def _require(field: str, value: int, *, least: int, most: int) -> None:
    if not least <= value <= most:
        raise malformed(field, f"is {value}; name one from {least} to {most}")
