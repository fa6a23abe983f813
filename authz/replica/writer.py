"""Applies changes to the replica: one transaction for consecutive revisions, which records the last one."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from authz.domain.entities import (
    PLATFORM_ACTIVATION,
    Entity,
    Erasure,
    ErasureStatus,
    PolicyActivationKey,
    kind_of,
)
from authz.domain.mutations import Change, LogTail, Mutation, Operation
from authz.domain.tokens import ConsistencyToken
from authz.replica.codec import Databases
from authz.replica.environment import Environment, ReplicaHeader, UnusableError
from authz.replica.kinds import CODECS


def require_same_history(held: ConsistencyToken, tail: LogTail) -> None:
    """Raise if the tail of the log does not follow the state that the replica holds."""
    head = tail.head
    if head.database_id != held.database_id:
        raise UnusableError("it belongs to another database")
    if head.revision < held.revision:
        raise UnusableError(f"it holds revision {held.revision}, and the database only {head.revision}")
    if tail.after != held:
        raise UnusableError(f"revision {held.revision} differs in the database, or is no longer in its log")
    if head.revision > held.revision and not tail.changes:
        raise UnusableError(f"revision {held.revision + 1} is no longer in the log")


def apply_changes(environment: Environment, changes: Sequence[Change]) -> int:
    """Apply consecutive revisions, all or none; return the last.

    Raises `UnusableError` if they do not follow the revision that the replica holds.
    """
    with environment.lmdb.begin(write=True) as transaction:
        header = environment.header(transaction)
        databases = Databases(transaction, environment.databases)
        for change in changes:
            if change.revision != header.revision + 1:
                raise UnusableError(f"revision {header.revision} is followed by {change.revision}")
            databases.committed_at = change.committed_at
            for mutation in change.mutations:
                _apply(databases, mutation)
            header = _header_after(header, change)
        environment.set_header(transaction, header)
    return header.revision


def _header_after(header: ReplicaHeader, change: Change) -> ReplicaHeader:
    fields = {field for mutation in change.mutations if (field := _outdated_by(mutation))}
    return msgspec.structs.replace(
        header,
        revision=change.revision,
        committed_at=change.committed_at,
        nonce=change.nonce,
        **dict.fromkeys(fields, change.revision),
    )


def _outdated_by(mutation: Mutation) -> str:
    """The field of `ReplicaHeader` that says when such a mutation was last applied; empty for none."""
    key, target = mutation.key, mutation.target
    if key == PLATFORM_ACTIVATION:
        return "policy"
    # The context of a course says which policy of its own is active.
    if kind_of(key).scope is not None or isinstance(key, PolicyActivationKey):
        return "scopes"
    if isinstance(target, Erasure) and target.status is ErasureStatus.ERASED:
        return "erased"
    return ""


def put(databases: Databases, entity: Entity) -> None:
    """Store an entity, replacing the one with the same key."""
    CODECS[kind_of(entity).name].put(databases, entity)


def _apply(databases: Databases, mutation: Mutation) -> None:
    """Apply one effect of the change log."""
    entity = mutation.target
    assert isinstance(entity, Entity)  # noqa: S101  the log holds whole entities, also of deletions
    if mutation.operation is Operation.DELETE:
        CODECS[kind_of(entity).name].remove(databases, entity)
    else:
        put(databases, entity)
