"""Makes a replica from a dump of the source of truth, in the order of its keys and with full pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import lmdb

from authz.domain.ports import Dump
from authz.replica.codec import Pair
from authz.replica.environment import Environment, UnusableError, Versions, not_ready
from authz.replica.kinds import CODECS, TOMBSTONES
from authz.replica.layout import ref_key, tombstone_record

_PAGE = 1_000
"""Rows between two looks at whether to stop."""
_CHUNK = 100_000
"""Rows a transaction: what LMDB keeps in memory until it commits."""


def build_replica(
    folder: Path, dump: Dump, *, max_bytes: int, stopped: Callable[[], bool] = lambda: False
) -> None:
    """Fill an empty folder with what a dump holds. Until the end, the file says that it is unfinished.

    Raises `UnavailableError` soon after `stopped` says so.
    """
    environment = Environment(folder, max_bytes=max_bytes)
    try:
        for name, pairs in _parts(dump):
            _fill(environment, environment.databases[name], _until(stopped, pairs))
        with environment.lmdb.begin(write=True) as transaction:
            state = dump.state
            revision = state.revision
            versions = Versions(
                revision,
                state.committed_at,
                state.nonce,
                scopes=revision,
                policy=revision,
                erased=revision,
                cleared=revision,
            )
            environment.set_versions(transaction, versions)
            environment.set_identity(transaction, state.database_id, dump.token_key)
        environment.lmdb.sync(True)
    finally:
        environment.lmdb.close()


def _until(stopped: Callable[[], bool], pairs: Iterable[Pair]) -> Iterator[Pair]:
    left = iter(pairs)
    while page := list(islice(left, _PAGE)):
        if stopped():
            raise not_ready("the server was stopped while it built its replica; start it again")
        yield from page


def _parts(dump: Dump) -> Iterator[tuple[str, Iterable[Pair]]]:
    yield TOMBSTONES, ((ref_key(ref), tombstone_record(at)) for ref, at in dump.tombstones())
    for codec in CODECS.values():
        yield codec.database, codec.pairs(dump)
        for index in codec.indexes:
            yield index.database, index.pairs(dump.values(codec.kind, index.fields))


def _fill(environment: Environment, database: lmdb._Database, pairs: Iterable[Pair]) -> None:
    """Append what comes in the order of its keys; insert the rest."""
    left = iter(pairs)
    last = b""
    late: list[Pair] = []

    def in_order(chunk: Iterable[Pair]) -> Iterator[Pair]:
        nonlocal last
        for pair in chunk:
            # Packed ids do not sort where their text does.
            if pair[0] > last:
                last = pair[0]
                yield pair
            else:
                late.append(pair)

    more = True
    while more:
        with environment.lmdb.begin(write=True) as transaction, transaction.cursor(database) as cursor:
            consumed, added = cursor.putmulti(in_order(islice(left, _CHUNK)), append=True)
            if added != consumed:  # LMDB skips what it cannot append, and raises no error
                raise UnusableError(f"{consumed - added} records could not be appended")
            cursor.putmulti(late)
        more = consumed + len(late) == _CHUNK
        late.clear()
