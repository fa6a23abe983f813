"""A replica of a few given entities, for as long as somebody asks it."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from authz.domain.entities import Entity, Share
from authz.domain.ports import Snapshot
from authz.domain.tokens import KEY_BYTES, TokenKeys
from authz.replica.caches import Caches
from authz.replica.codec import Databases
from authz.replica.environment import Environment, ReplicaHeader
from authz.replica.snapshot import ReplicaSnapshot
from authz.replica.writer import put

_MAX_BYTES = 1 << 30
_DATABASE_ID = "temporary"


@contextmanager
def temporary_snapshot(entities: Iterable[Entity], *, revision: int = 1) -> Iterator[Snapshot]:
    """A snapshot of the entities at a revision, in a temporary folder that is removed afterwards.

    It decides as any replica does: it is one.
    """
    with tempfile.TemporaryDirectory(prefix="authz-snapshot-") as folder:
        environment = Environment(Path(folder), max_bytes=_MAX_BYTES)
        with closing(environment.lmdb):
            with environment.lmdb.begin(write=True) as transaction:
                databases = Databases(transaction, environment.databases)
                # A resource notes that it is shared when the share is put.
                for entity in sorted(entities, key=lambda entity: isinstance(entity, Share)):
                    put(databases, entity)
                header = ReplicaHeader(revision, 0, 0, revision, revision)
                environment.set_header(transaction, header)
            keys = TokenKeys()
            keys.add(_DATABASE_ID, secrets.token_bytes(KEY_BYTES))
            yield ReplicaSnapshot(environment, _DATABASE_ID, keys, Caches())
