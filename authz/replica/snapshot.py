"""One state of the replica: one LMDB read transaction, in which a check is a handful of lookups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import lmdb

from authz.domain.context import DELETED, SCOPE_MISSING, ResourceContext, ScopeContext, scope_context_of
from authz.domain.effective_roles import Grant, Suspension
from authz.domain.entities import AccountStatus, Course, Session, ShareLevel
from authz.domain.facts import OWN
from authz.domain.ids import ResourceRef, Scope, Subject
from authz.domain.tokens import TokenKeys
from authz.replica.caches import Caches, ReplicaScope, intern
from authz.replica.codec import Codec
from authz.replica.environment import Environment
from authz.replica.kinds import CODECS
from authz.replica.layout import (
    COURSE_KIND,
    PLATFORM_KEY,
    SESSION_KIND,
    pack_id,
    read_context,
    read_ref,
    read_scope,
    read_subject,
    ref_key,
    scope_key,
    subject_key,
    unpack_id,
)

T = TypeVar("T")

_PLATFORM = ReplicaScope(scope_context_of(None, None).state)
_NO_GRANTS: tuple[Grant, ...] = ()
_COURSES, _SESSIONS = CODECS["course"], CODECS["session"]
_read_share = CODECS["share"].decode


class ReplicaSnapshot:
    """A `Snapshot` over one read transaction, which ends with it.

    It remembers the last resource and the last grants that it read: a page of resources asks about one
    subject in one course many times.
    """

    def __init__(self, environment: Environment, database_id: str, keys: TokenKeys, caches: Caches) -> None:
        self._environment = environment
        self._caches = caches
        # Most reads are of this database, so it is the one of a read that names none.
        self._transaction: lmdb.Transaction = environment.lmdb.begin(environment.members)
        self._get: Callable[..., Any] = self._transaction.get
        self._accounts = environment.databases["accounts"]
        self._grants_key: tuple[bytes, bytes, bytes] | None = None
        self._grants = _NO_GRANTS
        self._ref_key = b""
        self._resource: bytes | None = None
        self._subject: Subject | None = None
        self._subject_key = b""
        self._suspension: Suspension | None = None
        self._suspension_key = b""
        if self._transaction.id() != caches.transaction_id:
            caches.update(environment, self._transaction)
        # This state's own: the next state may have others.
        self._scopes = caches.scopes
        self._platform = caches.platform
        self.policy = caches.policy
        versions = caches.versions
        self.revision = versions.revision
        self.state = versions.state(database_id)
        self.token = keys.seal(self.state)

    def is_outdated(self) -> bool:
        """Whether the follower has committed since."""
        return bool(self._environment.lmdb.info()["last_txnid"] != self._transaction.id())

    def scope(self, scope: Scope) -> ScopeContext | None:
        """See `Snapshot.scope`."""
        return self._scope(scope_key(scope))

    def resource(self, ref: ResourceRef, subject: Subject) -> ResourceContext | None:
        """See `Snapshot.resource`."""
        key = ref_key(ref)
        if key != self._ref_key:
            self._ref_key, self._resource = key, self._get(key, None, self._environment.resources)
        raw = self._resource
        if raw is None:
            return None if self._get(key, None, self._environment.tombstones) is None else DELETED
        in_scope, owner, facts, times, shared = read_context(raw)
        scope = self._scopes.get(in_scope) or self._scope(in_scope)
        if scope is None:
            return SCOPE_MISSING
        facts = facts & scope.state.possible | scope.state.facts
        if owner == self._key_of(subject):
            facts |= OWN
        return ResourceContext(scope, facts, times, shared)

    def grants(self, subject: Subject, scope: ScopeContext) -> tuple[Grant, ...]:
        """See `Snapshot.grants`. One read for each scope."""
        assert isinstance(scope, ReplicaScope)  # noqa: S101  made here; narrows the type
        head = self._key_of(subject)
        key = (head, scope.course_key, scope.session_key)
        if key == self._grants_key:
            return self._grants
        platform = self._platform
        found = (
            platform.get(head, _NO_GRANTS) if platform is not None else self._grants_in(head, PLATFORM_KEY)
        )
        if scope.course_key:
            found += self._grants_in(head, scope.course_key)
        if scope.session_key:
            found += self._grants_in(head, scope.session_key)
        self._grants_key, self._grants = key, found
        return found

    def suspension(self, subject: Subject) -> Suspension | None:
        """See `Snapshot.suspension`."""
        key = self._key_of(subject)
        if key != self._suspension_key:
            self._suspension_key, self._suspension = key, self._read_suspension(key)
        return self._suspension

    def share(self, ref: ResourceRef, subject: Subject) -> ShareLevel | None:
        """See `Snapshot.share`."""
        raw = self._get(ref_key(ref) + self._key_of(subject), None, self._environment.shares)
        return None if raw is None else _read_share(raw)[0]

    def scan_resources(
        self,
        *,
        scope: Scope | None = None,
        owner: Subject | None = None,
        shared_with: Subject | None = None,
        after: ResourceRef | None = None,
    ) -> Iterator[ResourceRef]:
        """See `Snapshot.scan_resources`."""
        env = self._environment
        found: list[tuple[lmdb._Database, bytes]] = []
        if scope is not None:
            found.append((env.resources_in, scope_key(scope)))
        if owner is not None:
            found.append((env.resources_of, subject_key(owner)))
        if shared_with is not None:
            found.append((env.shares_with, subject_key(shared_with)))
        if len(found) != 1:
            raise ValueError("scan_resources takes exactly one of scope, owner and shared_with")
        database, head = found[0]
        for ref, key in self._scan(database, head, b"" if after is None else ref_key(after), read_ref):
            if self._scope_of_resource(key[len(head) :]) is not None:
                yield ref

    def scan_members(
        self, scope: Scope, *, after: Subject | None = None
    ) -> Iterator[tuple[Subject, tuple[Grant, ...]]]:
        """See `Snapshot.scan_members`."""
        database, head = self._environment.members_in, scope_key(scope)
        last = b"" if after is None else subject_key(after)
        if self._scope(head) is None:
            return
        for subject, key in self._scan(database, head, last, read_subject):
            yield subject, self._grants_in(key[len(head) :], head)

    def scan_scopes(
        self, subject: Subject, *, after: Scope | None = None
    ) -> Iterator[tuple[Scope, tuple[Grant, ...]]]:
        """See `Snapshot.scan_scopes`."""
        database, head = self._environment.members, subject_key(subject)
        last = b"" if after is None else scope_key(after)
        for scope, key in self._scan(database, head, last, read_scope):
            if self._scope(key[len(head) :]) is not None:
                yield scope, self._grants_in(head, key[len(head) :])

    def scan_sessions(self, course_id: str, *, after: str | None = None) -> Iterator[str]:
        """See `Snapshot.scan_sessions`."""
        database, head = self._environment.sessions_in, pack_id(course_id)
        last = b"" if after is None else pack_id(after)
        if self._scope(COURSE_KIND + head) is None:
            return
        for session_id, _ in self._scan(database, head, last, unpack_id):
            yield session_id

    def _scan(
        self, database: lmdb._Database, head: bytes, after: bytes, read: Callable[[bytes, int], tuple[T, int]]
    ) -> Iterator[tuple[T, bytes]]:
        """What follows `head` in each key that begins with it, behind `head + after`; and the key."""
        with self._transaction.cursor(database) as cursor:
            found = cursor.set_range(head + after)
            if found and after and bytes(cursor.key()) == head + after:
                found = cursor.next()
            while found and (key := bytes(cursor.key())).startswith(head):
                yield read(key, len(head))[0], key
                found = cursor.next()

    def _scope(self, key: bytes) -> ReplicaScope | None:
        known = self._scopes.get(key)
        if known is not None:
            return known
        if key == PLATFORM_KEY:
            return _PLATFORM
        course: Course | None = None
        session: Session | None = None
        course_key, session_key = key, b""
        if key.startswith(SESSION_KIND):
            session = self._read(_SESSIONS, key[1:])
            if session is None:
                return None
            course_key, session_key = b"", key
            if session.course_id is not None:
                course_key = COURSE_KIND + pack_id(session.course_id)
        if course_key:
            course = self._read(_COURSES, course_key[1:])
            if course is None:
                return None
        found = scope_context_of(course, session)
        scope = ReplicaScope(found.state, found.course_id, found.session_id, course_key, session_key)
        return intern(self._scopes, key, scope)

    def _scope_of_resource(self, ref: bytes) -> ReplicaScope | None:
        """The scope of a resource, by the key of the resource; None if either is gone."""
        raw = self._get(ref, None, self._environment.resources)
        if raw is None:
            return None
        in_scope = read_context(raw)[0]
        return self._scopes.get(in_scope) or self._scope(in_scope)

    def _read(self, codec: Codec, key: bytes) -> Any:
        """The entity with a key, or None."""
        raw = self._get(key, None, self._environment.databases[codec.database])
        return None if raw is None else codec.read(key, raw)

    def _grants_in(self, subject: bytes, scope: bytes) -> tuple[Grant, ...]:
        raw = self._get(subject + scope)
        if raw is None:
            return _NO_GRANTS
        name = scope[:1] + raw
        return self._caches.grants.get(name) or self._caches.read_grants(name)

    def _read_suspension(self, key: bytes) -> Suspension | None:
        raw = self._get(key, None, self._accounts)
        if raw is None:
            return None
        account = CODECS["account"].read(key, raw)
        return Suspension(account.suspended_until) if account.status is AccountStatus.SUSPENDED else None

    def _key_of(self, subject: Subject) -> bytes:
        # A decision asks up to three times, and a batch is often about one subject.
        if subject != self._subject:
            self._subject, self._subject_key = subject, subject_key(subject)
        return self._subject_key
