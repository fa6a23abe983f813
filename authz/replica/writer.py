"""Takes changes into the replica: one transaction for a run of revisions, with the last one recorded."""

from __future__ import annotations

from collections.abc import Sequence

import lmdb

from authz.domain.entities import (
    Course,
    CourseKey,
    Entity,
    Key,
    Membership,
    MembershipKey,
    Resource,
    Session,
    SessionKey,
    Share,
    ShareKey,
)
from authz.domain.ids import PLATFORM, ResourceRef
from authz.domain.mutations import Change, LogTail, Mutation, Operation
from authz.domain.tokens import ConsistencyToken
from authz.replica.environment import Environment, UnusableError, Versions
from authz.replica.layout import (
    course_key,
    course_key_of,
    course_record,
    grant_record,
    is_shared,
    join_grants,
    ref_key,
    resource_owner,
    resource_record,
    resource_scope,
    scope_key,
    session_key,
    session_record,
    share_record,
    split_grants,
    subject_key,
    with_shared,
)

_NOTHING = b""


class GapError(Exception):
    """The change log does not go on where the replica ends."""


def require_same_history(held: ConsistencyToken, tail: LogTail) -> None:
    """Raise when what the database says does not follow on what the replica holds."""
    head = tail.head
    if head.database_id != held.database_id:
        raise UnusableError("it is of another database")
    if head.revision < held.revision:
        raise UnusableError(f"it holds revision {held.revision} and the database only {head.revision}")
    if tail.after != held:
        raise UnusableError(f"revision {held.revision} is another one in the database, or gone from its log")
    if head.revision > held.revision and not tail.changes:
        raise GapError(f"revision {held.revision + 1} is gone from the log")


def apply_changes(environment: Environment, changes: Sequence[Change]) -> int:
    """Apply consecutive revisions, all or none; return the last.

    Raises `GapError` when they do not follow on what the replica holds.
    """
    with environment.lmdb.begin(write=True) as transaction:
        held = environment.versions(transaction)
        platform, scopes = held.platform, held.scopes
        revision = held.revision
        writer = Writer(environment, transaction)
        for change in changes:
            if change.revision != revision + 1:
                raise GapError(f"revision {revision} is followed by {change.revision}")
            revision = change.revision
            for mutation in change.mutations:
                writer.apply(mutation)
                key = mutation.key
                if isinstance(key, CourseKey | SessionKey):
                    scopes = revision
                elif isinstance(key, MembershipKey) and key.scope == PLATFORM:
                    platform = revision
        if changes:
            last = changes[-1]
            versions = Versions(revision, last.committed_at, last.nonce, platform, scopes)
            environment.set_versions(transaction, versions)
    return revision


class Writer:
    """Puts entities into the databases of one write transaction, and takes them out of all of them."""

    def __init__(self, environment: Environment, transaction: lmdb.Transaction) -> None:
        self._environment = environment
        self._transaction = transaction

    def apply(self, mutation: Mutation) -> None:
        """Take in one effect of the change log."""
        if mutation.operation is Operation.DELETE:
            self.remove(mutation.key)
        else:
            assert isinstance(mutation.target, Entity)  # noqa: S101  the log holds whole entities
            self.put(mutation.target)

    def put(self, entity: Entity) -> None:
        """Store an entity in place of what is there under its key."""
        env, put = self._environment, self._transaction.put
        match entity:
            case Course():
                put(course_key(entity.id), course_record(entity), db=env.scopes)
            case Session():
                put(session_key(entity.id), session_record(entity), db=env.scopes)
                if entity.course_id is not None:
                    put(course_key(entity.course_id) + session_key(entity.id), _NOTHING, db=env.sessions_in)
            case Membership():
                self._put_membership(entity)
            case Resource():
                self._put_resource(entity)
            case Share():
                ref, subject = ref_key(entity.resource), subject_key(entity.subject)
                put(ref + subject, share_record(entity.level), db=env.shares)
                put(subject + ref, _NOTHING, db=env.shares_with)
                self._nonce(ref, shared=True)

    def remove(self, key: Key) -> None:
        """Take out what is under a key, if anything is."""
        env, delete = self._environment, self._transaction.delete
        match key:
            case CourseKey():
                delete(course_key(key.id), db=env.scopes)
            case SessionKey():
                self._remove_session(session_key(key.id))
            case MembershipKey():
                self._remove_membership(key)
            case ResourceRef():
                self._remove_resource(ref_key(key))
            case ShareKey():
                ref, subject = ref_key(key.resource), subject_key(key.subject)
                delete(ref + subject, db=env.shares)
                delete(subject + ref, db=env.shares_with)
                self._nonce(ref, shared=self._has_shares(ref))

    def _put_membership(self, membership: Membership) -> None:
        env, transaction = self._environment, self._transaction
        subject, scope = subject_key(membership.subject), scope_key(membership.scope)
        held = split_grants(env.read(transaction, subject + scope, env.members))
        held[membership.role] = grant_record(membership)
        transaction.put(subject + scope, join_grants(held), db=env.members)
        transaction.put(scope + subject, _NOTHING, db=env.members_in)

    def _remove_membership(self, key: MembershipKey) -> None:
        env, transaction = self._environment, self._transaction
        subject, scope = subject_key(key.subject), scope_key(key.scope)
        held = split_grants(env.read(transaction, subject + scope, env.members))
        held.pop(key.role, None)
        if held:
            transaction.put(subject + scope, join_grants(held), db=env.members)
        else:
            transaction.delete(subject + scope, db=env.members)
            transaction.delete(scope + subject, db=env.members_in)

    def _put_resource(self, resource: Resource) -> None:
        env, transaction = self._environment, self._transaction
        ref = ref_key(resource.key)
        shared = is_shared(self._remove_resource(ref))
        transaction.put(ref, resource_record(resource, shared=shared), db=env.resources)
        transaction.put(scope_key(resource.scope) + ref, _NOTHING, db=env.resources_in)
        if resource.owner is not None:
            transaction.put(subject_key(resource.owner) + ref, _NOTHING, db=env.resources_of)

    def _remove_resource(self, ref: bytes) -> bytes:
        """Return the record as it was, empty for none."""
        env, transaction = self._environment, self._transaction
        before = env.read(transaction, ref, env.resources)
        if not before:
            return before
        transaction.delete(ref, db=env.resources)
        transaction.delete(resource_scope(before) + ref, db=env.resources_in)
        if owner := resource_owner(before):
            transaction.delete(owner + ref, db=env.resources_of)
        return before

    def _nonce(self, ref: bytes, *, shared: bool) -> None:
        """Let the resource's record say whether there are shares of it."""
        env, transaction = self._environment, self._transaction
        raw = env.read(transaction, ref, env.resources)
        if raw and is_shared(raw) is not shared:
            transaction.put(ref, with_shared(raw, shared), db=env.resources)

    def _has_shares(self, ref: bytes) -> bool:
        with self._transaction.cursor(self._environment.shares) as cursor:
            return bool(cursor.set_range(ref)) and bytes(cursor.key()).startswith(ref)

    def _remove_session(self, key: bytes) -> None:
        env, transaction = self._environment, self._transaction
        before = env.read(transaction, key, env.scopes)
        if not before:
            return
        transaction.delete(key, db=env.scopes)
        if course := course_key_of(before):
            transaction.delete(course + key, db=env.sessions_in)
