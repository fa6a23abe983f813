"""A campus of given entities in a real replica, as a snapshot to decide on."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from authz.domain.entities import Entity, Key, Membership, Resource, Share
from authz.domain.ids import ResourceRef, Scope, Subject
from authz.replica.caches import Caches
from authz.replica.codec import Databases
from authz.replica.environment import Environment, ReplicaHeader
from authz.replica.snapshot import ReplicaSnapshot
from authz.replica.writer import put
from tests.tokens import keys_of

_DATABASE_ID = "campus"


@cache
def _environment() -> Environment:
    """One for the process: a campus replaces the one before, whose snapshot keeps what it sees."""
    folder = tempfile.mkdtemp(prefix="authz-campus-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Environment(Path(folder), max_bytes=1 << 30)


class Campus(ReplicaSnapshot):
    """A snapshot of given entities; of several with one key the last counts. They may refer to nothing."""

    def __init__(self, entities: Iterable[Entity], revision: int = 1) -> None:
        self._entities: dict[Key, Entity] = {entity.key: entity for entity in entities}
        environment = _environment()
        with environment.lmdb.begin(write=True) as transaction:
            for database in environment.databases.values():
                transaction.drop(database, delete=False)
            databases = Databases(transaction, environment.databases)
            # A resource notes that it is shared when the share is put.
            for entity in sorted(self._entities.values(), key=lambda entity: isinstance(entity, Share)):
                put(databases, entity)
            environment.set_header(transaction, ReplicaHeader(revision, 0, 0, revision, revision))
        super().__init__(environment, _DATABASE_ID, keys_of(_DATABASE_ID), Caches())

    @property
    def entities(self) -> tuple[Entity, ...]:
        return tuple(self._entities.values())

    def registered(self, ref: ResourceRef) -> Resource | None:
        found = self._entities.get(ref)
        return found if isinstance(found, Resource) else None

    def memberships_in(self, subject: Subject, scopes: Sequence[Scope]) -> tuple[Membership, ...]:
        """Those of the subject in any of the scopes."""
        return tuple(
            e
            for e in self._entities.values()
            if isinstance(e, Membership) and e.subject == subject and e.scope in scopes
        )
