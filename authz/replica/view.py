"""Which state of the replica is served: the newest, and none that is too stale."""

from __future__ import annotations

import weakref
from contextlib import suppress
from pathlib import Path

import lmdb
import structlog

from authz.domain.errors import ErrorReason, UnavailableError
from authz.domain.instants import US_PER_S, format_duration
from authz.domain.ports import View
from authz.domain.tokens import ConsistencyToken, TokenKeys
from authz.replica.caches import Caches
from authz.replica.environment import (
    DAMAGE,
    Environment,
    hold_environment,
    not_ready,
    release_environment,
    released_on_error,
)
from authz.replica.generations import open_generation
from authz.replica.shared_state import CONFIRMED_AT, GENERATION, REQUIRED, REVISION, SharedState, uptime_ns
from authz.replica.snapshot import ReplicaSnapshot

log = structlog.get_logger()

_ANOTHER_DATABASE = "the replica's folder is kept for another database; give each its own AUTHZ_REPLICA_DIR"
_NO_GENERATION = -1
"""Differs from every generation, and from 0, which means that none is served."""


class ReplicaView(View):
    """A `View` of the replica in a folder, whichever generation of it is current.

    `source` names the database, as for the follower: the replica of another one is never served. The view
    adds the key of its database to `keys`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        source: str,
        max_bytes: int,
        max_staleness_s: float,
        keys: TokenKeys | None = None,
    ) -> None:
        self._keys = TokenKeys() if keys is None else keys
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
        self.policy_number = 0

    def snapshot(self) -> ReplicaSnapshot:
        words, kept = self._state.words, self._snapshot
        confirmed_at = words[CONFIRMED_AT]
        # 0 means never, also shortly after boot.
        if not confirmed_at or not 0 <= uptime_ns() - confirmed_at <= self._max_staleness_ns:
            raise self._too_stale()
        if words[REVISION] < words[REQUIRED]:
            raise self._behind()
        if kept is not None and words[REVISION] == kept.revision and words[GENERATION] == self._generation:
            return kept
        self._snapshot = None
        environment = self._environment
        if environment is None or words[GENERATION] != self._generation:
            environment = self._reopen()
        self._snapshot = taken = self._begin(environment)
        self.policy_number = 0 if taken.policy is None else taken.policy.number
        return taken

    def release_stale_snapshot(self) -> None:
        """Release a cached snapshot that is no longer the newest, so that LMDB can reuse its pages; leave a
        folder that was deleted for the one that replaced it."""
        self._reopen_if_replaced()
        kept = self._snapshot
        if kept is not None and self._state.words[REVISION] != kept.revision:
            self._snapshot = None
        environment = self._environment
        if self._state.generation != self._generation or (
            environment is not None and environment.is_outgrown()
        ):
            # A deleted file occupies disk space until it is closed; an outgrown file must be reopened.
            self._close_environment()

    def revision(self) -> int:
        words = self._state.words
        if not words[GENERATION]:
            raise not_ready()
        return words[REVISION]

    def require(self, state: ConsistencyToken) -> None:
        self._reopen_if_replaced()
        if not self._state.is_of(self._source):
            return  # nobody answers from this folder for our database
        self._state.require(state.revision)
        if not (self._state.is_behind() or self._holds(state)):
            # The number alone does not keep a replica of a lost history from being served.
            self._state.withdraw()

    def is_behind(self) -> bool:
        return self._state.is_behind()

    def database_id(self) -> str:
        self._current()
        return self._database_id

    def generation(self) -> int:
        return self._state.generation

    def cleared(self) -> int:
        return self._current().cleared()

    def staleness_s(self) -> float:
        return self._state.staleness_s()

    def close(self) -> None:
        self._close_environment()
        self._state.close()

    def _begin(self, environment: Environment) -> ReplicaSnapshot:
        with suppress(lmdb.MapResizedError):
            return self._held(environment)
        # Another server follows with a larger limit on the file. Reopening the file applies its size here.
        return self._held(self._reopen())

    def _held(self, environment: Environment) -> ReplicaSnapshot:
        """A snapshot that keeps its environment open: a call that takes turns still reads it when the replica
        is rebuilt or reopened."""
        snapshot = ReplicaSnapshot(environment, self._database_id, self._keys, self._caches)
        hold_environment(environment)
        weakref.finalize(snapshot, release_environment, environment).atexit = False
        return snapshot

    def _close_environment(self) -> None:
        self._snapshot, self._caches = None, Caches()
        if self._environment is not None:
            release_environment(self._environment)
            self._environment = None

    def _reopen_if_replaced(self) -> None:
        if self._state.is_replaced():
            # The folder was deleted and created again: confirmations now go to the new page.
            # The old page stays open, because another thread may be about to read it.
            self._state = SharedState(self._folder)
            self._generation = _NO_GENERATION

    def _holds(self, state: ConsistencyToken) -> bool:
        try:
            return self._current().state().includes(state)
        except Exception as error:  # noqa: BLE001  whatever it is: a replica that cannot be read proves nothing
            log.warning("replica not readable", cause=str(error))
            return False

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
            raise not_ready(_ANOTHER_DATABASE)
        try:
            environment = open_generation(self._folder, generation, max_bytes=self._max_bytes)
            with released_on_error(environment):
                self._database_id = environment.state().database_id
                self._keys.add(self._database_id, environment.token_key())
        # The follower will notice the damage, too. An outgrown file is still open in this process.
        except (*DAMAGE, lmdb.MapResizedError):
            raise not_ready() from None
        self._environment, self._generation = environment, generation
        return environment

    def _behind(self) -> UnavailableError:
        words = self._state.words
        return UnavailableError(
            ErrorReason.TOO_STALE,
            f"the replica holds revision {words[REVISION]}, and this machine has acknowledged revision"
            f" {words[REQUIRED]}; try again in a moment, or another server",
        )

    def _too_stale(self) -> UnavailableError:
        staleness_s = self.staleness_s()
        if staleness_s == float("inf"):
            return not_ready()
        allowed = format_duration(round(self._max_staleness_s * US_PER_S))
        return UnavailableError(
            ErrorReason.TOO_STALE,
            f"the replica has not heard of the database for {staleness_s:.0f} s, and"
            f" {allowed} are allowed (AUTHZ_MAX_STALENESS_S); try another server",
            limit_s=allowed.removesuffix(" s"),
        )
