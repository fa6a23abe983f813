"""Decisions read here: one LMDB transaction is one snapshot, and a check a handful of look-ups."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import lmdb

from authz.domain.effective_roles import Grant
from authz.domain.entities import ShareLevel
from authz.domain.errors import ErrorReason, UnavailableError
from authz.domain.facts import OWN
from authz.domain.ids import ResourceRef, Scope, Subject
from authz.domain.resource_context import SCOPE_MISSING, ResourceContext
from authz.domain.scope_context import ScopeContext, scope_context_of
from authz.domain.tokens import encode_consistency_token
from authz.replica.caches import MAX_PLACES, Caches, keep
from authz.replica.environment import (
    Environment,
    UnusableError,
    acquire_environment,
    not_ready,
    release_environment,
)
from authz.replica.layout import (
    COURSE_KIND,
    PLATFORM_KEY,
    SESSION_KIND,
    course_key_of,
    is_course_key,
    is_shared,
    read_grants,
    read_item,
    read_share,
    ref_key,
    scope_key,
    subject_key,
    unpack_id,
)
from authz.replica.shared_state import CONFIRMED_AT, GENERATION, REVISION, SharedState, uptime_ns

_OF_ANOTHER = "the replica's folder is kept for another database; give each its own AUTHZ_REPLICA_DIR"
_NO_GENERATION = -1
"""Differs from every generation, and from 0, which says that none is to be served."""
_PLATFORM_PLACE = scope_context_of(None, None)
_NO_GRANTS: tuple[Grant, ...] = ()


class ReplicaSnapshot:
    """A `Snapshot` over one read transaction, which ends with it.

    It remembers what it read last: a page that is shown asks of one subject in one course many times, and
    each read of LMDB hands the interpreter over.
    """

    __slots__ = (
        "_caches",
        "_environment",
        "_get",
        "_grants",
        "_grants_head",
        "_grants_place",
        "_places",
        "_platform",
        "_ref",
        "_ref_key",
        "_resource",
        "_subject",
        "_subject_key",
        "_transaction",
        "revision",
        "state",
        "token",
    )

    def __init__(self, environment: Environment, database_id: str, caches: Caches) -> None:
        self._environment = environment
        self._caches = caches
        # What most reads are of is the database that a read is of when it names none.
        self._transaction: lmdb.Transaction = environment.lmdb.begin(environment.members)
        self._grants = _NO_GRANTS
        self._grants_head = b""
        self._grants_place: ScopeContext | None = None
        self._resource: bytes | None = None
        self._ref: ResourceRef | None = None
        self._ref_key = b""
        self._subject: Subject | None = None
        self._subject_key = b""
        if self._transaction.id() != caches.transaction_id:
            caches.update(environment, self._transaction)
        self._get: Callable[..., Any] = self._transaction.get
        # Its own, of this state: the next state may have others.
        self._places = caches.places
        self._platform = caches.platform
        versions = caches.versions
        self.revision = versions.revision
        self.state = versions.state(database_id)
        self.token = encode_consistency_token(self.state)

    def is_outdated(self) -> bool:
        """Whether something has been committed since."""
        return bool(self._environment.lmdb.info()["last_txnid"] != self._transaction.id())

    def place(self, scope: Scope) -> ScopeContext | None:
        """The scope with what surrounds it, or None."""
        key = scope_key(scope)
        return self._places.get(key) or self._read_place(key)

    def _read_place(self, key: bytes) -> ScopeContext | None:
        if key == PLATFORM_KEY:
            return _PLATFORM_PLACE
        scopes = self._environment.scopes
        raw = self._get(key, None, scopes)
        if raw is None:
            return None
        id_, caches = unpack_id(key, 1)[0], self._caches
        if is_course_key(key):
            place = ScopeContext(caches.setting(raw, b""), id_, None, key)
        elif of_course := course_key_of(raw):
            raw_course = self._get(of_course, None, scopes)
            if raw_course is None:
                return None
            course_id = unpack_id(of_course, 1)[0]
            place = ScopeContext(caches.setting(raw_course, raw), course_id, id_, of_course, key)
        else:
            place = ScopeContext(caches.setting(b"", raw), None, id_, b"", key)
        keep(self._places, key, place, most=MAX_PLACES)
        return place

    def item(self, ref: ResourceRef, subject: Subject) -> ResourceContext | None:
        """The registered resource, None, or `SCOPE_MISSING`."""
        key = ref_key(ref)
        if key != self._ref_key:
            self._ref_key, self._resource = key, self._get(key, None, self._environment.resources)
        self._ref, raw = ref, self._resource
        if raw is None:
            return None
        scope, owner, facts, (available_from, available_until, created_at) = read_item(raw)
        place = self._places.get(scope) or self._read_place(scope)
        if place is None:
            return SCOPE_MISSING
        setting = place.setting
        facts = facts & setting.possible | setting.facts
        if owner == self._key_of(subject):
            facts |= OWN
        return ResourceContext(place, facts, available_from, available_until, created_at)

    def grants(self, subject: Subject, place: ScopeContext) -> tuple[Grant, ...]:
        """The subject's memberships in the scopes of a place, one read for each scope."""
        head = self._subject_key if subject is self._subject else self._key_of(subject)
        if place is self._grants_place and head == self._grants_head:
            return self._grants
        caches, platform = self._caches, self._platform
        found = self._platform_grants_of(head) if platform is None else platform.get(head, _NO_GRANTS)
        key = place.course_key
        if key and (raw := self._get(head + key)) is not None:
            name = COURSE_KIND + raw
            found += caches.grants.get(name) or caches.keep_grants(name)
        key = place.session_key
        if key and (raw := self._get(head + key)) is not None:
            name = SESSION_KIND + raw
            found += caches.grants.get(name) or caches.keep_grants(name)
        self._grants_place, self._grants_head, self._grants = place, head, found
        return found

    def share(self, ref: ResourceRef, subject: Subject) -> ShareLevel | None:
        """What a share opens, or None."""
        if ref is self._ref:
            if self._resource is None or not is_shared(self._resource):
                return None
            key = self._ref_key
        else:
            key = ref_key(ref)
        raw = self._get(key + self._key_of(subject), None, self._environment.shares)
        return None if raw is None else read_share(raw)

    def _key_of(self, subject: Subject) -> bytes:
        # A question asks thrice, and a batch is often one subject's.
        if subject is not self._subject:
            self._subject = subject
            self._subject_key = subject_key(subject)
        return self._subject_key

    def _platform_grants_of(self, head: bytes) -> tuple[Grant, ...]:
        raw = self._get(head + PLATFORM_KEY)
        return _NO_GRANTS if raw is None else read_grants(PLATFORM_KEY + raw)


class ReplicaView:
    """A `View` of the replica in a folder, whichever generation of it is current.

    `source` names the database, as for the follower: the replica of another one is never served.
    """

    def __init__(self, folder: Path, *, source: str, max_bytes: int, max_staleness_s: float) -> None:
        self._folder = folder
        self._source = source
        self._max_bytes = max_bytes
        self._max_staleness_s = max_staleness_s
        self._max_staleness_ns = int(max_staleness_s * 1e9)
        self._state = SharedState(folder)
        self._generation = _NO_GENERATION
        self._database_id = ""
        self._environment: Environment | None = None
        self._caches = Caches()
        self._snapshot: ReplicaSnapshot | None = None

    def snapshot(self) -> ReplicaSnapshot:
        """The state that the follower last committed. Raises `UnavailableError` past the bound."""
        state = self._state
        confirmed_at = state.words[CONFIRMED_AT]
        # 0 is never, also on a machine that was started just now.
        if not confirmed_at or not 0 <= uptime_ns() - confirmed_at <= self._max_staleness_ns:
            self._reopen_if_replaced()
            staleness_s = self.staleness_s()
            if staleness_s > self._max_staleness_s:
                raise self._too_stale(staleness_s)
            state = self._state
        words, kept = state.words, self._snapshot
        if kept is not None and words[REVISION] == kept.revision and words[GENERATION] == self._generation:
            return kept
        self._snapshot = None
        environment = self._environment
        if environment is None or words[GENERATION] != self._generation:
            environment = self._reopen()
        self._snapshot = taken = self._begin(environment)
        return taken

    def release_stale_snapshot(self) -> None:
        """Release what is kept of a state that is not the last any more: its pages can be used again. And
        leave a folder that was deleted, for the one that has its name now."""
        self._reopen_if_replaced()
        kept = self._snapshot
        if kept is not None and (self._state.words[REVISION] != kept.revision or kept.is_outdated()):
            self._snapshot = None
        environment = self._environment
        if self._state.generation != self._generation or (
            environment is not None and environment.is_outgrown()
        ):
            # A file that is deleted takes its room until then; one that is outgrown can then be opened anew.
            self._close_environment()

    def revision(self) -> int:
        """The revision at hand, however stale. Raises `UnavailableError` when there is none."""
        words = self._state.words
        if not words[GENERATION]:
            raise not_ready()
        return words[REVISION]

    def database_id(self) -> str:
        """Of which database this is a replica. Raises `UnavailableError` when there is none."""
        self._current()
        return self._database_id

    def staleness_s(self) -> float:
        """Seconds since the replica was known to hold the last committed revision; infinite for never."""
        return self._state.staleness_s()

    def close(self) -> None:
        """Let go of the files."""
        self._close_environment()
        self._state.close()

    def _begin(self, environment: Environment) -> ReplicaSnapshot:
        with suppress(lmdb.MapResizedError):
            return ReplicaSnapshot(environment, self._database_id, self._caches)
        # Another server, which follows, is allowed a larger file: opened anew, that much is allowed here.
        return ReplicaSnapshot(self._reopen(), self._database_id, self._caches)

    def _close_environment(self) -> None:
        self._snapshot, self._caches = None, Caches()
        if self._environment is not None:
            release_environment(self._environment)
            self._environment = None

    def _reopen_if_replaced(self) -> None:
        if self._state.is_replaced():
            # The folder was deleted and made again: what is confirmed now is confirmed there.
            # The old page is not closed, as another thread may be about to read it.
            self._state = SharedState(self._folder)
            self._generation = _NO_GENERATION

    def _current(self) -> Environment:
        if self._environment is None or self._state.generation != self._generation:
            return self._reopen()
        return self._environment

    def _reopen(self) -> Environment:
        self._close_environment()
        generation = self._state.generation
        if generation == 0 or not self._state.is_of_this_boot():
            raise not_ready()
        if not self._state.is_of(self._source):
            raise not_ready(_OF_ANOTHER)
        try:
            environment = acquire_environment(self._folder / str(generation), max_bytes=self._max_bytes)
        except UnusableError:
            raise not_ready() from None  # the follower will notice, too
        try:
            environment.require_usable()
            self._database_id = environment.state().database_id
        except (UnusableError, lmdb.MapResizedError):  # the latter until whoever shares it lets go, too
            release_environment(environment)
            raise not_ready() from None
        self._environment, self._generation = environment, generation
        return environment

    def _too_stale(self, staleness_s: float) -> UnavailableError:
        if self._state.generation == 0 or staleness_s == float("inf"):
            return not_ready()
        return UnavailableError(
            ErrorReason.TOO_STALE,
            f"the replica has not heard of the database for {staleness_s:.0f} s, and"
            f" {self._max_staleness_s:g} s are allowed (AUTHZ_MAX_STALENESS_S); try another server",
            limit_s=f"{self._max_staleness_s:g}",
        )
