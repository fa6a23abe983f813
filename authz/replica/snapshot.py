"""One state of the replica: one LMDB read transaction, in which a check is a handful of lookups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import lmdb

from authz.domain.context import DELETED, SCOPE_MISSING, ResourceContext, ScopeContext, scope_context_of
from authz.domain.effective_roles import Memberships, Suspension
from authz.domain.entities import (
    AccessToken,
    AccountStatus,
    Course,
    CourseKey,
    PolicyActivation,
    PolicyVersion,
    Resource,
    Session,
    SessionKey,
    ShareLevel,
    kind_of,
)
from authz.domain.ids import ResourceRef, Scope, Subject
from authz.domain.ports import Snapshot
from authz.domain.tokens import TokenKeys
from authz.replica.caches import Caches, ReplicaScope, read_policy_version
from authz.replica.codec import Codec
from authz.replica.environment import Environment
from authz.replica.kinds import CODECS
from authz.replica.layout import (
    COURSE_KIND,
    END,
    PLATFORM_KEY,
    SESSION_KIND,
    pack_id,
    ref_key,
    scope_key,
    subject_key,
    whole_id,
    whole_subject,
)
from authz.replica.resource_records import ResourceRecord, decode_resource
from authz.replica.scans import merge_sorted, scan_both, scan_prefix, scan_records

_PLATFORM = ReplicaScope(scope_context_of(None, None).state)
_NO_COURSE = bytes((COURSE_KIND[0] + 1,))
"""Stands for the place of the sessions without a course: behind every course."""
_NO_MEMBERSHIPS: Memberships = ()
_COURSES, _SESSIONS, _ACTIVATIONS = CODECS["course"], CODECS["session"], CODECS["policy_activation"]
_ACCESS_TOKENS = CODECS["access_token"]
_read_share = CODECS["share"].decode


class ReplicaSnapshot(Snapshot):
    """A `Snapshot` over one read transaction, which ends with it."""

    def __init__(self, environment: Environment, database_id: str, keys: TokenKeys, caches: Caches) -> None:
        self._environment = environment
        self._caches = caches
        # Most reads are of this database, so it is the one of a read that names none.
        self._transaction: lmdb.Transaction = environment.lmdb.begin(environment.members)
        self._get: Callable[..., Any] = self._transaction.get
        self._accounts = environment.databases["accounts"]
        self._restrictions = environment.databases["restrictions"]
        self._subject: Subject | None = None
        self._subject_key = b""
        if self._transaction.id() != caches.transaction_id:
            caches.update(environment, self._transaction)
        # This state's own: the next state may have others.
        self._scopes = caches.scopes
        self._known_memberships = caches.memberships
        self.policy = caches.policy
        header = caches.header
        self.revision = header.revision
        self.state = header.state(database_id)
        self.token = keys.sign(self.state)

    def policy_version(self, activation: PolicyActivation) -> PolicyVersion | None:
        return read_policy_version(self._environment, self._transaction, activation)

    def has_course_policies(self) -> bool:
        activations = self._environment.databases[_ACTIVATIONS.database]
        return any(scan_prefix(self._transaction, activations, COURSE_KIND))

    def scope(self, scope: Scope) -> ScopeContext | None:
        return self._scope(scope_key(scope))

    def resource(self, ref: ResourceRef, subject: Subject) -> ResourceContext | None:
        key = ref_key(ref)
        record = self._record_of(key)
        if record is None:
            return None if self._get(key, None, self._environment.tombstones) is None else DELETED
        scope = self._scopes.get(record.scope) or self._scope(record.scope)
        return SCOPE_MISSING if scope is None else record.context(scope, self._key_of(subject))

    def record(self, key: CourseKey | SessionKey | ResourceRef) -> Course | Session | Resource | None:
        if isinstance(key, ResourceRef):
            record = self._record_of(ref_key(key))
            return None if record is None else record.resource(key)
        codec = CODECS[kind_of(key).name]
        found: Course | Session | Resource | None = self._read(codec, codec.key_of(key))
        return found

    def owner(self, ref: ResourceRef) -> Subject | None:
        record = self._record_of(ref_key(ref))
        return whole_subject(record.owner) if record is not None and record.owner else None

    def memberships(self, subject: Subject, scope: ScopeContext) -> Memberships:
        assert isinstance(scope, ReplicaScope)  # noqa: S101  made here; narrows the type
        head = self._key_of(subject)
        found = self._memberships_in(head, PLATFORM_KEY)
        if scope.course_key:
            found += self._memberships_in(head, scope.course_key)
        if scope.session_key:
            found += self._memberships_in(head, scope.session_key)
        return found

    def suspension(self, subject: Subject) -> Suspension | None:
        key = self._key_of(subject)
        raw = self._get(key, None, self._accounts)
        account = None if raw is None else CODECS["account"].read(key, raw)
        until = None if account is None else account.suspended_until
        is_suspended = account is not None and account.status is AccountStatus.SUSPENDED
        is_restricted = self._get(key, None, self._restrictions) is not None
        return Suspension(until, is_suspended, is_restricted) if is_suspended or is_restricted else None

    def access_token(self, id_: str) -> AccessToken | None:
        found: AccessToken | None = self._read(_ACCESS_TOKENS, pack_id(id_))
        return found

    def share(self, ref: ResourceRef, subject: Subject) -> ShareLevel | None:
        raw = self._get(ref_key(ref) + self._key_of(subject), None, self._environment.shares)
        return None if raw is None else _read_share(raw)[0]

    def scan_contexts(
        self, subject: Subject | None = None, *, start: tuple[str, str] = ("", "")
    ) -> Iterator[ScopeContext | None]:
        course_id, session_id = start
        first_session = SESSION_KIND + pack_id(session_id) if session_id else b""
        first_course = COURSE_KIND + pack_id(course_id) if course_id else _NO_COURSE if session_id else b""
        for found in self._courses(subject, first_course):
            if found is None:
                yield None
                continue
            course, held_in = found
            first = first_session if (course or _NO_COURSE) == first_course else b""
            if held_in is None and course and not first:
                yield self._scope(course)
            for session in self._sessions(course, first) if held_in is None else held_in:
                context = self._scope(session) if session >= first else None
                yield context if context is not None and context.course_key == course else None

    def scan_content(
        self,
        scope: ScopeContext,
        type_name: str,
        subject: Subject,
        *,
        after: str = "",
        only_own: bool = False,
    ) -> Iterator[tuple[str, ResourceContext]]:
        assert isinstance(scope, ReplicaScope)  # noqa: S101  made here; narrows the type
        env, transaction = self._environment, self._transaction
        own_key, type_key = self._key_of(subject), type_name.encode() + END
        last = pack_id(after) if after else b""
        here = (env.resources_in, (scope.session_key or scope.course_key) + type_key)
        if only_own:
            indexes = ((env.resources_of, own_key + type_key), (env.shares_with, own_key + type_key))
            records = merge_sorted([scan_both(transaction, index, here, last) for index in indexes])
        else:
            records = scan_records(transaction, *here, last)
        return ((whole_id(key), decode_resource(raw).context(scope, own_key)) for key, raw in records)

    def scan_members(
        self, scope: ScopeContext, *, platform: bool, after: Subject | None = None
    ) -> Iterator[Subject]:
        assert isinstance(scope, ReplicaScope)  # noqa: S101  made here; narrows the type
        heads = [key for key in (scope.course_key, scope.session_key) if key]
        heads += [PLATFORM_KEY] if platform else []
        last = b"" if after is None else subject_key(after)
        database, transaction = self._environment.members_in, self._transaction
        ranges = [scan_prefix(transaction, database, head, last) for head in heads]
        yield from self._subjects(ranges[0] if len(ranges) == 1 else merge_sorted(ranges))

    def scan_holders(self, ref: ResourceRef, *, after: Subject | None = None) -> Iterator[Subject]:
        head, last = ref_key(ref), b"" if after is None else subject_key(after)
        shares = scan_prefix(self._transaction, self._environment.shares, head, last)
        record = self._record_of(head)
        owners = [record.owner] if record is not None and record.owner > last else []
        yield from self._subjects(merge_sorted([owners, shares]))

    def scan_memberships(self, scope: ScopeContext) -> Iterator[tuple[Subject, Memberships]]:
        head, memberships_in = _own_key(scope), self._memberships_in
        for key in scan_prefix(self._transaction, self._environment.members_in, head):
            self._subject_key = key
            self._subject = subject = whole_subject(key)
            yield subject, memberships_in(key, head)

    def scan_owned(
        self, scope: ScopeContext, type_name: str
    ) -> Iterator[tuple[ResourceRef, Subject | None, ResourceContext]]:
        here = self._environment.resources_in, _own_key(scope) + type_name.encode() + END
        for key, raw in scan_records(self._transaction, *here):
            record = decode_resource(raw)
            owner = whole_subject(record.owner) if record.owner else None
            yield ResourceRef(type_name, whole_id(key)), owner, record.context(scope)

    def scan_shares(self, ref: ResourceRef) -> Iterator[tuple[Subject, ShareLevel]]:
        for key, raw in scan_records(self._transaction, self._environment.shares, ref_key(ref)):
            yield whole_subject(key), _read_share(raw)[0]

    def count_members(self) -> int:
        return int(self._transaction.stat(self._environment.members_in)["entries"])

    def _subjects(self, keys: Iterable[bytes]) -> Iterator[Subject]:
        for key in keys:
            self._subject_key = key
            self._subject = subject = whole_subject(key)
            yield subject

    def _courses(
        self, subject: Subject | None, start: bytes
    ) -> Iterator[tuple[bytes, list[bytes] | None] | None]:
        """The keys of courses from `start` on, and last an empty one, for the sessions without a course; each
        with the sessions that the subject is in, None for all of its sessions and itself.

        Before the first, None for each membership that is read to order the courses.
        """
        if subject is None:
            if start != _NO_COURSE:
                found = scan_prefix(self._transaction, self._environment.databases["courses"], b"", start[1:])
                if start:
                    yield start, None
                for key in found:
                    yield COURSE_KIND + key, None
            yield b"", None
            return
        held: dict[bytes, list[bytes] | None] = {}
        head = self._key_of(subject)
        for scope in scan_prefix(self._transaction, self._environment.members, head):
            yield None
            if scope.startswith(COURSE_KIND):  # all of them come before the sessions
                held[scope] = None
            elif scope.startswith(SESSION_KIND) and (context := self._scope(scope)) is not None:
                sessions = held.setdefault(context.course_key, [])
                if sessions is not None:
                    sessions.append(scope)
        left = ((course or _NO_COURSE, course) for course in held)
        yield from ((course, held[course]) for place, course in sorted(left) if place >= start)

    def _sessions(self, course: bytes, start: bytes) -> Iterator[bytes]:
        """The keys of all sessions of a course from `start` on; of all there are, for an empty one."""
        environment, last = self._environment, start[1:]
        if start:
            yield start
        if course:
            found = scan_prefix(self._transaction, environment.sessions_in, course[1:], last)
        else:
            found = scan_prefix(self._transaction, environment.databases["sessions"], b"", last)
        for key in found:
            yield SESSION_KIND + key

    def _scope(self, key: bytes) -> ReplicaScope | None:
        known = self._scopes.get(key)
        if known is not None:
            return known
        if key == PLATFORM_KEY:
            return _PLATFORM
        course: Course | None = None
        course_policy: PolicyActivation | None = None
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
            course_policy = self._read(_ACTIVATIONS, course_key)
        found = scope_context_of(course, session)
        ids = found.course_id, found.session_id
        scope = self._scopes[key] = ReplicaScope(
            found.state, *ids, course, session, course_policy, course_key, session_key
        )
        return scope

    def _read(self, codec: Codec, key: bytes) -> Any:
        """The entity with a key, or None."""
        raw = self._get(key, None, self._environment.databases[codec.database])
        return None if raw is None else codec.read(key, raw)

    def _record_of(self, key: bytes) -> ResourceRecord | None:
        """The record of a resource, None for none."""
        raw = self._get(key, None, self._environment.resources)
        return None if raw is None else decode_resource(raw)

    def _memberships_in(self, subject: bytes, scope: bytes) -> Memberships:
        raw = self._get(subject + scope)
        if raw is None:
            return _NO_MEMBERSHIPS
        name = scope[:1] + raw
        return self._known_memberships.get(name) or self._caches.read_memberships(name)

    def _key_of(self, subject: Subject) -> bytes:
        # A decision asks up to three times, and a batch is often about one subject.
        if subject != self._subject:
            self._subject, self._subject_key = subject, subject_key(subject)
        return self._subject_key


def _own_key(scope: ScopeContext) -> bytes:
    """The key of the scope that a context is of."""
    assert isinstance(scope, ReplicaScope)  # noqa: S101  made by a snapshot; narrows the type
    return scope.session_key or scope.course_key or PLATFORM_KEY
