"""The caches that the snapshots of one generation of the replica share, keyed by stored bytes only."""

from __future__ import annotations

from typing import Any

import lmdb

from authz.domain.cache import BoundedCache
from authz.domain.context import ScopeContext
from authz.domain.effective_roles import Memberships
from authz.domain.entities import (
    PLATFORM_ACTIVATION,
    Key,
    PolicyActivation,
    PolicyVersion,
    PolicyVersionKey,
    kind_of,
)
from authz.replica.environment import Environment, ReplicaHeader
from authz.replica.kinds import CODECS
from authz.replica.layout import read_memberships

MAX_INTERNED = 131_072
"""Entries a cache keeps, of some 400 bytes each: all courses of a platform with ten million memberships."""


class ReplicaScope(ScopeContext, frozen=True, eq=False, gc=False):
    """A scope context with the keys of its course and its session as scopes, empty for none."""

    course_key: bytes = b""
    session_key: bytes = b""


class Caches:
    """Bounded caches of what the replica stores.

    LMDB numbers its commits: under the same number nothing at all has changed. `scopes` are by key, and
    `policy` is the platform's active version. Both are dropped when a revision changes something of their
    kind. `memberships` are interned by their bytes, so they cannot be stale.
    """

    def __init__(self) -> None:
        self.transaction_id = -1
        self.header = ReplicaHeader(-1, 0, 0, -1, -1)
        self.scopes = BoundedCache[bytes, ReplicaScope](MAX_INTERNED)
        self.policy: PolicyVersion | None = None
        self.memberships = BoundedCache[bytes, Memberships](MAX_INTERNED)

    def update(self, environment: Environment, transaction: lmdb.Transaction) -> None:
        """Drop what the state of a transaction has outdated."""
        header = environment.header(transaction)
        if header.scopes != self.header.scopes:
            self.scopes = BoundedCache(MAX_INTERNED)
        if header.policy != self.header.policy:
            self.policy = _active_policy(environment, transaction)
        self.header = header
        self.transaction_id = transaction.id()

    def read_memberships(self, name: bytes) -> Memberships:
        """Decode memberships, interned by the kind of their scope and their record."""
        found = self.memberships[name] = read_memberships(name)
        return found


def _active_policy(environment: Environment, transaction: lmdb.Transaction) -> PolicyVersion | None:
    """The platform's active version; None before any is, and if the replica lacks it."""
    active = read_record(environment, transaction, PLATFORM_ACTIVATION)
    return None if active is None else read_policy_version(environment, transaction, active)


def read_policy_version(
    environment: Environment, transaction: lmdb.Transaction, activation: PolicyActivation
) -> PolicyVersion | None:
    """The version that an activation names; None if the replica lacks it."""
    key = PolicyVersionKey(activation.scope, activation.number)
    version: PolicyVersion | None = read_record(environment, transaction, key)
    return version


def read_record(environment: Environment, transaction: lmdb.Transaction, record: Key) -> Any:
    """The entity with a key; None without one. For kinds whose records are stored as a whole."""
    codec = CODECS[kind_of(record).name]
    key = codec.key_of(record)
    raw = environment.read(transaction, key, environment.databases[codec.database])
    return codec.read(key, raw) if raw else None
